-- Keep a new bulk export, in line to begin, if there are not too many.
-- KEYS: job, the registration's jobs, those in line
-- ARGV: the sealed record, its name in the lists, now, until when its app is waited for, most in line, most in all, ms
if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[5]) then return 0 end
if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[6]) then return 0 end
redis.call('HSET', KEYS[1], 'sealed', ARGV[1], 'version', 1, 'next:0', 0)
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[2])
redis.call('ZADD', KEYS[3], ARGV[3], ARGV[2])
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[7]) end
return 1
