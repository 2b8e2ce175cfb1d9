-- Take the lease on refreshing a grant. It says nothing yet about a request: see intend_refresh.
-- Where an earlier attempt was cut off, or its answer lost, only who knows what is safe at the EHR goes on: `repeat`
-- (somebody knows that it may be sent again) or `look` (the caller finds out first). Both are told `again`, and whose
-- attempt it was; the lease is then named after when that one began, however often it is repeated.
-- KEYS: grant, lease    ARGV: owner, lease in ms, generation that the caller saw, '' or 'repeat' or 'look', now in s
local state, generation, intent, hold = unpack(redis.call('HMGET', KEYS[1], 'state', 'generation', 'intent', 'hold_until'))
if not generation then return 'gone' end
if state ~= 'active' and not (state == 'uncertain' and ARGV[4] ~= '') then return state end
if generation ~= ARGV[3] then return 'moved' end
if redis.call('EXISTS', KEYS[2]) == 1 then return 'held' end
if intent and ARGV[4] == '' then return 'interrupted' end
if hold and tonumber(hold) > tonumber(ARGV[5]) then return 'on_hold' end
local began = string.match(intent or '', '@.+$')
local name = began and string.match(ARGV[1], '^[^@]*') .. began or ARGV[1]
redis.call('SET', KEYS[2], name, 'PX', ARGV[2])
if intent or state == 'uncertain' then return 'again ' .. (intent or '') end
return 'claimed'
