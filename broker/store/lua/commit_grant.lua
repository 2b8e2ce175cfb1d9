-- Write a grant's next generation, if nobody else did and, for a refresh, if no other attempt began since (fencing).
-- The intent decides, not the lease: an answer that took longer than the lease is still the only one there is, also
-- for a grant that was called uncertain while it was on its way. Written twice, it is written once: who was not told
-- that it was stored, or stored where it must be, asks again. The first 69 bytes of what is sealed say under which key,
-- and a rotation may have replaced them meanwhile: the same record is the one whose other bytes are the same.
-- KEYS: grant, lease    ARGV: expected generation (0 = must not exist), who intended the refresh, lifetime in ms, the
--                             sealed tokens, then field, value, field, value …
local state, generation, intent, tokens = unpack(redis.call('HMGET', KEYS[1], 'state', 'generation', 'intent', 'tokens'))
local sealed = string.sub(ARGV[4], 70)
if generation and tokens and sealed ~= '' and string.sub(tokens, 70) == sealed then return 'ok' end
if ARGV[1] == '0' then
  if generation then return 'stale' end
else
  if not generation then return 'gone' end
  if state == 'revoked' then return 'revoked' end
  if generation ~= ARGV[1] then return 'stale' end
  if intent ~= ARGV[2] then return 'fenced' end
end
redis.call('HSET', KEYS[1], 'tokens', ARGV[4], unpack(ARGV, 5))
redis.call('HDEL', KEYS[1], 'intent', 'cause', 'trouble')
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if redis.call('GET', KEYS[2]) == ARGV[2] then redis.call('DEL', KEYS[2]) end
return 'ok'
