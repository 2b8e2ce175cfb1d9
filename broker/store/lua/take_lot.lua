-- Take up to so many tokens from a bucket: one is there for each gap since it was empty, and no more than fit into it.
-- A time that is further ahead than it can have been when it was written is from before the clock was set back: then the
-- bucket counts as empty, and a pause as over.
-- KEYS: bucket    ARGV: now in s, most wanted, s from one token to the next (0 = no limit), tokens that fit, longest
--                       pause in s, ms to keep it
-- The answer: tokens, s until there is one where there was none, s until nobody is to be held back any more
local now, wanted, gap = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local read = redis.call('HMGET', KEYS[1], 'spent', 'held')
local held = tonumber(read[2] or 0)
if held > now + ARGV[5] + 60 then held = now end
local given, wait = 0, 0
if gap > 0 and wanted > 0 then
  local full = gap * ARGV[4]
  local written = tonumber(read[1] or 0)
  local spent = math.max(now, math.min(written, now + full))
  given = math.min(wanted, math.floor((now + full - spent) / gap + 0.001))
  if given > 0 or written > spent then
    redis.call('HSET', KEYS[1], 'spent', string.format('%.6f', spent + given * gap))
    redis.call('PEXPIRE', KEYS[1], ARGV[6])
  end
  if given == 0 then wait = spent + gap - now - full end
end
return {given, string.format('%.6f', wait), string.format('%.6f', math.max(held - now, 0))}
