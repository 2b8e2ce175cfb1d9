-- Let nobody take from a bucket until then; the later end counts, unless it is further ahead than any can be.
-- KEYS: bucket    ARGV: now in s, s to hold it, longest pause in s, ms to keep it
local held = tonumber(redis.call('HGET', KEYS[1], 'held') or 0)
if held > ARGV[1] + ARGV[3] + 60 then held = 0 end
redis.call('HSET', KEYS[1], 'held', string.format('%.3f', math.max(held, ARGV[1] + ARGV[2])))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
