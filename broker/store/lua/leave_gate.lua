-- Give a slot at an EHR's token endpoint back, and keep what the EHR's answer says to everybody. Done again, or by
-- somebody whose slot was taken back, it changes nothing. What fails while the EHR is known to fail says nothing new,
-- unless it was the one to find out. The answer: 'ok', 'late', 'mended'; or 'broken' and for how many seconds.
-- KEYS: gate, slots    ARGV: name of the request, now in s, 'answered' or 'failed' or 'neither', s of the pause that
--                            the EHR asked for (0 = none), failures in a row that are too many, s within which,
--                            s of the first break, s of the longest one, ms to keep all this
local now = tonumber(ARGV[2])
if redis.call('ZREM', KEYS[2], ARGV[1]) == 0 then return 'late' end
local read = redis.call('HMGET', KEYS[1], 'paused', 'breaks', 'prober', 'failures', 'failed')
local breaks, probes = tonumber(read[2] or 0), read[3] == ARGV[1]
local function set(...)
  redis.call('HSET', KEYS[1], ...)
  redis.call('PEXPIRE', KEYS[1], ARGV[9])
end
local function at(seconds) return string.format('%.3f', now + seconds) end

if tonumber(ARGV[4]) > 0 and now + ARGV[4] > tonumber(read[1] or 0) then set('paused', at(ARGV[4])) end
if probes then redis.call('HDEL', KEYS[1], 'prober', 'probed') end
if ARGV[3] == 'answered' then
  redis.call('HDEL', KEYS[1], 'breaks', 'broken', 'prober', 'probed', 'failures', 'failed')
  return breaks > 0 and 'mended' or 'ok'
end
if ARGV[3] ~= 'failed' or (breaks > 0 and not probes) then return 'ok' end

local since = tonumber(read[5] or 0)
local fresh = now < since or now - since > tonumber(ARGV[6])
local failures = (fresh and 0 or tonumber(read[4] or 0)) + 1
if breaks == 0 and failures < tonumber(ARGV[5]) then
  set('failures', failures, 'failed', fresh and at(0) or read[5])
  return 'ok'
end
local seconds = math.min(ARGV[7] * 2 ^ math.min(breaks, 30), tonumber(ARGV[8]))
redis.call('HDEL', KEYS[1], 'failures', 'failed')
set('breaks', breaks + 1, 'broken', at(seconds))
return 'broken ' .. seconds
