-- Delete every handle and refresh handle that came from one authorization of an app, and leave a mark: a code may have
-- been taken that is not yet a handle.
-- KEYS: handle index, the mark    ARGV: family
redis.call('SET', KEYS[2], '1', 'PX', 600000)
local prefix = string.sub(KEYS[1], 1, -(#'handles' + 1))
local ended = 0
for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local family, key = string.match(member, '^([^:]+):(.+)$')
  if family == ARGV[1] then
    ended = ended + redis.call('DEL', prefix .. key)
    redis.call('ZREM', KEYS[1], member)
  end
end
return ended
