-- Keep one more observed end of a refresh token, and of all no more than so many, none older than so long.
-- KEYS: ends    ARGV: the end, now in s, most that are kept, for how many s
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[2] - ARGV[4])
for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, -(ARGV[3] + 1))) do redis.call('ZREM', KEYS[1], member) end
redis.call('PEXPIRE', KEYS[1], ARGV[4] * 1000)
return 'ok'
