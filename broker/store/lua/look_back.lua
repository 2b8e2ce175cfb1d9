-- Leave a mark that only moves forward, and say how far back the store's own has gone from the one that the caller saw.
-- A store that went back further than a fail-over can explain was restored: what it held at that moment is from before.
-- KEYS: witness    ARGV: name for a store that has none, name and mark that the caller saw ('' and 0 = none yet), now in
--                        seconds, most seconds that it may have gone back
local store, mark, restored = unpack(redis.call('HMGET', KEYS[1], 'store', 'mark', 'restored_at'))
if not store then
  store = ARGV[1]
  redis.call('HSET', KEYS[1], 'store', store)
end
local latest, back = tonumber(mark or 0), 0
if store == ARGV[2] and tonumber(ARGV[3]) > latest then
  back = tonumber(ARGV[3]) - latest
  latest = tonumber(ARGV[3])
  if back > tonumber(ARGV[5]) then
    restored = ARGV[4]
    redis.call('HSET', KEYS[1], 'restored_at', restored)
  end
end
if tonumber(ARGV[4]) > latest then latest = tonumber(ARGV[4]) end
mark = string.format('%.3f', latest)
redis.call('HSET', KEYS[1], 'mark', mark)
return {store, mark, restored or '0', string.format('%.3f', back)}
