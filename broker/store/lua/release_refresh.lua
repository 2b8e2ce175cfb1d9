-- Give the lease back after an attempt that certainly changed nothing at the EHR.
-- KEYS: grant, lease    ARGV: owner, time in seconds before which there is no other attempt (0 = none)
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
local intent, hold = unpack(redis.call('HMGET', KEYS[1], 'intent', 'hold_until'))
if intent == ARGV[1] then redis.call('HDEL', KEYS[1], 'intent') end
if hold and tonumber(ARGV[2]) > tonumber(hold) then redis.call('HSET', KEYS[1], 'hold_until', ARGV[2]) end
return 'ok'
