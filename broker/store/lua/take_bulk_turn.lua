-- Let a bulk export out of the line, if no more than the EHR takes are running; one that was let out stays so.
-- KEYS: those in line, those running, when each app's last one began
-- ARGV: its name, its app, now, most that run (0: any number), ms
if redis.call('ZSCORE', KEYS[2], ARGV[1]) then return 1 end
local most = tonumber(ARGV[4])
if most > 0 and redis.call('ZCARD', KEYS[2]) >= most then return 0 end
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
redis.call('ZADD', KEYS[3], ARGV[3], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
redis.call('PEXPIRE', KEYS[3], ARGV[5])
return 1
