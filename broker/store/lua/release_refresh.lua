-- Give the lease back after an attempt that certainly changed nothing at the EHR, or that may be asked about later.
-- The first failure leaves a mark: that is `news`.
-- KEYS: grant, lease, mark    ARGV: owner, time in seconds before which there is no other attempt (0 = none), whose
--                                   attempt stays written down as one that may have been sent ('' = none), code of what
--                                   failed ('' = nothing), now in seconds, a new mark ('' = nobody is to be told), how
--                                   long it stays in ms
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
local generation, intent, hold, trouble = unpack(redis.call('HMGET', KEYS[1], 'generation', 'intent', 'hold_until', 'trouble'))
if not generation then return 'gone' end
if intent == ARGV[1] then
  if ARGV[3] == '' then redis.call('HDEL', KEYS[1], 'intent') else redis.call('HSET', KEYS[1], 'intent', ARGV[3]) end
end
if hold and tonumber(ARGV[2]) > tonumber(hold) then redis.call('HSET', KEYS[1], 'hold_until', ARGV[2]) end
if ARGV[4] ~= '' then
  local first, count = string.match(trouble or '', '^(%S+) %S+ (%d+) ')
  local told = {first or ARGV[5], ARGV[5], string.format('%d', (count or 0) + 1), ARGV[4]}
  redis.call('HSET', KEYS[1], 'trouble', table.concat(told, ' '))
  if not trouble and ARGV[6] ~= '' then
    redis.call('SET', KEYS[3], ARGV[6], 'PX', ARGV[7])
    return 'news'
  end
end
return 'ok'
