-- End a handle, and every handle that was exchanged for it, however far down.
-- KEYS: handle, what was exchanged for its root    ARGV: its hash
local prefix = string.sub(KEYS[1], 1, -(#'handle:' + #ARGV[1] + 1))
local ended = redis.call('DEL', KEYS[1])
redis.call('DEL', prefix .. 'uses:' .. ARGV[1])
for _, way in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  if string.find(way, ARGV[1], 1, true) then
    local last = string.match(way, '[^:]+$')
    redis.call('DEL', prefix .. 'handle:' .. last, prefix .. 'uses:' .. last)
    redis.call('ZREM', KEYS[2], way)
  end
end
return ended
