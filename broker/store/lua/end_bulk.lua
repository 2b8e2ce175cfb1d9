-- Forget a bulk export, and take it out of every list.
-- KEYS: job, the registration's jobs, those in line, those running    ARGV: its name
for n = 2, 4 do redis.call('ZREM', KEYS[n], ARGV[1]) end
return redis.call('DEL', KEYS[1])
