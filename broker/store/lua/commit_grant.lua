-- Write a grant's next generation, if nobody else did and, for a refresh, if the lease is still ours (fencing).
-- KEYS: grant, lease    ARGV: expected generation (0 = must not exist), lease owner ("" = no lease needed),
--                             lifetime in ms, then field, value, field, value …
local state, generation = unpack(redis.call('HMGET', KEYS[1], 'state', 'generation'))
if ARGV[1] == '0' then
  if generation then return 'stale' end
else
  if not generation then return 'gone' end
  if state == 'revoked' then return 'revoked' end
  if generation ~= ARGV[1] then return 'stale' end
  if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 'fenced' end
end
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
redis.call('HDEL', KEYS[1], 'intent', 'cause')
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('DEL', KEYS[2])
return 'ok'
