-- Store a handle, and a refresh handle beside it where there is one, if the grant is alive.
-- KEYS: grant, handle index, handle, refresh handle, spent refresh handle (these two unread where there is none), the
--       mark of an ended family
-- ARGV: now in ms, handle's lifetime in ms, sealed handle, its member, refresh handle's lifetime in ms (0 = none),
--       sealed refresh handle, its member, "1" if a refresh handle is spent for this
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return 'gone' end
if state == 'revoked' then return state end
if redis.call('EXISTS', KEYS[6]) == 1 then return 'ended' end
if ARGV[8] == '1' then
  local used = redis.call('HGET', KEYS[5], 'used')
  if not used then return 'unknown' end
  if used == '1' then return 'reused' end
  redis.call('HSET', KEYS[5], 'used', '1')
end
local now, lifetime, refresh_lifetime = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[5])
redis.call('SET', KEYS[3], ARGV[3], 'PX', lifetime)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZADD', KEYS[2], now + lifetime, ARGV[4])
if refresh_lifetime > 0 then
  redis.call('HSET', KEYS[4], 'used', '0', 'sealed', ARGV[6])
  redis.call('PEXPIRE', KEYS[4], refresh_lifetime)
  redis.call('ZADD', KEYS[2], now + refresh_lifetime, ARGV[7])
end
local longest = math.max(lifetime, refresh_lifetime)
if redis.call('PTTL', KEYS[2]) < longest then redis.call('PEXPIRE', KEYS[2], longest) end
return 'ok'
