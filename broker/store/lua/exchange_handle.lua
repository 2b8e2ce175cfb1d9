-- Store a handle that is exchanged for another one, if the grant and that one live, and not too many hang on the handle
-- that both come from.
-- KEYS: grant, handle index, handle, the one it is exchanged for, what was exchanged for their root, counter of its
--       uses, the mark of an ended family
-- ARGV: now in ms, lifetime in ms, sealed handle, its member of the index, those of KEYS[5] and KEYS[6], the way from the
--       root to it, most of those, uses (0 = not counted)
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return 'gone' end
if state == 'revoked' then return state end
if redis.call('EXISTS', KEYS[7]) == 1 or redis.call('EXISTS', KEYS[4]) == 0 then return 'ended' end
local now, lifetime = tonumber(ARGV[1]), tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', now)
if #redis.call('ZRANGE', KEYS[5], 0, -1) >= tonumber(ARGV[8]) then return 'crowded' end
redis.call('SET', KEYS[3], ARGV[3], 'PX', lifetime)
redis.call('ZADD', KEYS[5], now + lifetime, ARGV[7])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZADD', KEYS[2], now + lifetime, ARGV[4])
if redis.call('PTTL', KEYS[5]) < lifetime then
  redis.call('PEXPIRE', KEYS[5], lifetime)
  redis.call('ZADD', KEYS[2], now + lifetime, ARGV[5])
end
if ARGV[9] ~= '0' then
  redis.call('SET', KEYS[6], ARGV[9], 'PX', lifetime)
  redis.call('ZADD', KEYS[2], now + lifetime, ARGV[6])
end
if redis.call('PTTL', KEYS[2]) < lifetime then redis.call('PEXPIRE', KEYS[2], lifetime) end
return 'ok'
