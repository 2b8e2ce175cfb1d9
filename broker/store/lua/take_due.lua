-- Take what is due from the schedules of some EHRs, from each no more than it may; whatever is taken comes up again a
-- little later, should its taker die.
-- KEYS: schedules    ARGV: now, when it comes up again, most to take from all of them, most from each
local left, taken = tonumber(ARGV[3]), {}
for n, key in ipairs(KEYS) do
  local most = math.min(left, tonumber(ARGV[n + 3]))
  local due = most > 0 and redis.call('ZRANGEBYSCORE', key, '-inf', ARGV[1], 'LIMIT', 0, most) or {}
  if #due > 0 then
    local scores = {}
    for _, tag in ipairs(due) do
      scores[#scores + 1] = ARGV[2]
      scores[#scores + 1] = tag
    end
    redis.call('ZADD', key, unpack(scores))
    left = left - #due
  end
  taken[n] = due
end
return taken
