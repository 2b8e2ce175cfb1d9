-- Write a grant's next generation, if nobody else did and, for a refresh, if no other attempt began since (fencing).
-- The intent decides, not the lease: an answer that took longer than the lease is still the only one there is, also
-- for a grant that was given up while it was on its way. Where no intent is left, a fail-over forgot it, or a later
-- attempt has ended and changed nothing: the answer is the only one all the same, unless the grant has ended.
-- Written twice, it is written once: who was not told that it was stored, or stored where it must be, asks again. The
-- first 69 bytes of what is sealed say under which key, and a rotation may have replaced them meanwhile: the same record
-- is the one whose other bytes are the same.
-- Of a grant that was in trouble it leaves a mark: that is `news`.
-- KEYS: grant, lease, mark    ARGV: expected generation (0 = must not exist), who intended the refresh, lifetime in ms,
--                                   the sealed tokens, a new mark ('' = nobody is to be told), how long it stays in ms,
--                                   then field, value, field, value …
local state, generation, intent, tokens, trouble, told =
  unpack(redis.call('HMGET', KEYS[1], 'state', 'generation', 'intent', 'tokens', 'trouble', 'told'))
local sealed = string.sub(ARGV[4], 70)
if generation and tokens and sealed ~= '' and string.sub(tokens, 70) == sealed then return 'ok' end
if ARGV[1] == '0' then
  if generation then return 'stale' end
else
  if not generation then return 'gone' end
  if state == 'revoked' then return 'revoked' end
  if generation ~= ARGV[1] then return 'stale' end
  if intent and intent ~= ARGV[2] then return 'fenced' end
  if not intent and state ~= 'active' and state ~= 'uncertain' then return 'fenced' end
end
redis.call('HSET', KEYS[1], 'tokens', ARGV[4], unpack(ARGV, 7))
redis.call('HDEL', KEYS[1], 'intent', 'cause', 'trouble')
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if redis.call('GET', KEYS[2]) == ARGV[2] then redis.call('DEL', KEYS[2]) end
if ARGV[5] ~= '' and generation and (state ~= 'active' or trouble or told) then
  redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[6])
  return 'news'
end
return 'ok'
