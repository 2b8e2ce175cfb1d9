-- Use an authorization code once; remember it, so that a replay is told from an unknown one.
-- KEYS: code    ARGV: how long to remember a used one, in ms
local sealed, family, used = unpack(redis.call('HMGET', KEYS[1], 'sealed', 'family', 'used'))
if not family then return {'unknown'} end
if used then return {'reused', family} end
redis.call('HSET', KEYS[1], 'used', '1')
redis.call('HDEL', KEYS[1], 'sealed')
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return {'ok', family, sealed}
