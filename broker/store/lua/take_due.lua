-- Take what is due from the schedule; whatever is taken comes up again a little later, should its taker die.
-- KEYS: schedule    ARGV: now, when it comes up again, most to take
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for _, tag in ipairs(due) do redis.call('ZADD', KEYS[1], ARGV[2], tag) end
return due
