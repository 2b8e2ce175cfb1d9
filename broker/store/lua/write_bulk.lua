-- Write a bulk export's record, if it is as it was read, and put it into the list that it belongs to now.
-- KEYS: job, the registration's jobs, those in line, those running
-- ARGV: version that was read, the sealed record, field of a time, that time, its name, since when it is in line,
--       until when its app is waited for, its list: 'waiting', 'running' or neither, ms
-- 1: done. 0: somebody else has written it. Nothing: it is gone.
local version = redis.call('HGET', KEYS[1], 'version')
if not version then return false end
if version ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'sealed', ARGV[2], 'version', ARGV[1] + 1, ARGV[3], ARGV[4])
redis.call('ZADD', KEYS[2], 'XX', ARGV[7], ARGV[5])
redis.call('ZREM', KEYS[3], ARGV[5])
if ARGV[8] ~= 'running' then redis.call('ZREM', KEYS[4], ARGV[5]) end
if ARGV[8] == 'waiting' then redis.call('ZADD', KEYS[3], ARGV[6], ARGV[5]) end
if ARGV[8] == 'running' then redis.call('ZADD', KEYS[4], 'NX', ARGV[6], ARGV[5]) end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[9]) end
return 1
