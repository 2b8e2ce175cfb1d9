-- Count one more of what may be done so many times in a while, if it was not done too often of late.
-- KEYS: the last ones, by time    ARGV: now in ms, of how long in ms they count, most of those, a name for this one
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1] - ARGV[2])
if #redis.call('ZRANGE', KEYS[1], 0, -1) >= tonumber(ARGV[3]) then return 0 end
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
