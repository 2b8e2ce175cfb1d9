-- Take one use from each of several counters, or from none where one is at its end or gone. A handle whose last use this
-- was ends, and every handle that was exchanged for it: none of them could be used again.
-- KEYS: what was exchanged for their root, then counters of uses, of a handle and of those it was exchanged for
for n = 2, #KEYS do
  if tonumber(redis.call('GET', KEYS[n]) or 0) < 1 then return 0 end
end
local function end_handle(digest, prefix)
  redis.call('DEL', prefix .. 'handle:' .. digest, prefix .. 'uses:' .. digest)
end
for n = 2, #KEYS do
  local left = redis.call('GET', KEYS[n])
  if left then
    redis.call('SET', KEYS[n], left - 1, 'KEEPTTL')
    if left - 1 < 1 then
      local prefix, digest = string.match(KEYS[n], '^(.*)uses:([^:]+)$')
      end_handle(digest, prefix)
      for _, way in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
        if string.find(way, digest, 1, true) then
          end_handle(string.match(way, '[^:]+$'), prefix)
          redis.call('ZREM', KEYS[1], way)
        end
      end
    end
  end
end
return 1
