-- Take the lease on refreshing a grant. It says nothing yet about a request: see intend_refresh.
-- KEYS: grant, lease    ARGV: owner, lease in ms, generation that the caller saw, "repeat" if an earlier unfinished
--                             attempt may be repeated, now in seconds
local state, generation, intent, hold = unpack(redis.call('HMGET', KEYS[1], 'state', 'generation', 'intent', 'hold_until'))
if not generation then return 'gone' end
if state ~= 'active' then return state end
if generation ~= ARGV[3] then return 'moved' end
if redis.call('EXISTS', KEYS[2]) == 1 then return 'held' end
if intent and ARGV[4] ~= 'repeat' then return 'interrupted' end
if hold and tonumber(hold) > tonumber(ARGV[5]) then return 'on_hold' end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return 'claimed'
