-- Give the lease back after an attempt that certainly changed nothing at the EHR.
-- KEYS: grant, lease    ARGV: owner
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
if redis.call('HGET', KEYS[1], 'intent') == ARGV[1] then redis.call('HDEL', KEYS[1], 'intent') end
return 'ok'
