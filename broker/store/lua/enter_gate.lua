-- Let one request through to an EHR's token endpoint, or say why not, and for how many seconds: the EHR asked for a
-- pause; it fails, and either nobody asks it now or one request finds out whether it still does; enough are under way;
-- enough were sent of late; or somebody waits who comes first. Who is held back takes nothing.
-- A time that is further ahead than it can have been when it was written is from before the clock was set back: void.
-- KEYS: gate, slots    ARGV: name of the request, now in s, s after which its slot is free in any case, 'background' if
--                            others come first, most under way, most sent in a row, s between two then, most in a row
--                            of all, longest pause in s, longest break in s, ms to keep all this
-- The answer: 'in'; or why not, and the seconds after which to try again (0 = nobody knows)
local now = tonumber(ARGV[2])
local read = redis.call('HMGET', KEYS[1], 'paused', 'breaks', 'broken', 'probed', 'spent', 'wanted')
local function ends(at, longest)
  local time = tonumber(at or 0)
  return time <= now + 2 * longest + 60 and time or 0
end
local function held(why, at) return string.format('%s %.3f', why, math.max(at - now, 0)) end
local background, gap = ARGV[4] == 'background', tonumber(ARGV[7])

local paused, broken = ends(read[1], ARGV[9]), ends(read[3], ARGV[10])
local probed, wanted = ends(read[4], 300), ends(read[6], 1)
if paused > now then return held('paused', paused) end
if read[2] and broken > now then return held('broken', broken) end
if read[2] and probed > now then return held('probed', math.min(probed, now + 0.25)) end

redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
local spent = math.max(ends(read[5], gap * ARGV[8]), now)
local free, why = spent + gap - gap * ARGV[6], nil
if #redis.call('ZRANGE', KEYS[2], ARGV[5] - 1, ARGV[5] - 1) > 0 then why = held('busy', now)
elseif free > now then why = held('spent', free)
elseif background and wanted > now then why = held('wanted', wanted) end
if why then
  if not background then
    redis.call('HSET', KEYS[1], 'wanted', string.format('%.3f', now + 1))
    redis.call('PEXPIRE', KEYS[1], ARGV[11])
  end
  return why
end

redis.call('ZADD', KEYS[2], string.format('%.3f', now + ARGV[3]), ARGV[1])
redis.call('HSET', KEYS[1], 'spent', string.format('%.6f', spent + gap))
if read[2] then redis.call('HSET', KEYS[1], 'prober', ARGV[1], 'probed', string.format('%.3f', now + ARGV[3])) end
redis.call('PEXPIRE', KEYS[1], ARGV[11])
redis.call('PEXPIRE', KEYS[2], ARGV[11])
return 'in'
