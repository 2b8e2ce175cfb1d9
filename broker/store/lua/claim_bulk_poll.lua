-- Let one caller ask the EHR about a bulk export, at most once until the answer says when the next one may.
-- KEYS: job    ARGV: field of the time, now, until when the caller's turn lasts
-- The time that all others wait for; empty: it is the caller's turn. Nothing where there is no such job.
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local at = redis.call('HGET', KEYS[1], ARGV[1]) or '0'
if tonumber(at) > tonumber(ARGV[2]) then return at end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return ''
