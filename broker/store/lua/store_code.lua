-- Store an authorization code, with its end.
-- KEYS: code    ARGV: lifetime in ms, family, what is sealed
redis.call('HSET', KEYS[1], 'family', ARGV[2], 'sealed', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 'ok'
