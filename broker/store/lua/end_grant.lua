-- Move a grant to a final state. A suspended or revoked one keeps no secret; of a revoked one everything that was handed
-- out goes, too. Another one keeps its intent: should the answer come after all, it can still be committed.
-- KEYS: grant, handle index, lease, mark    ARGV: state, cause, now, lifetime in ms, expected generation ("" = any), a
--                                                 new mark ('' = nobody is to be told), how long it stays in ms
local state, generation = unpack(redis.call('HMGET', KEYS[1], 'state', 'generation'))
if not generation then return 'gone' end
if state == 'revoked' then return 'revoked' end
if ARGV[5] ~= '' and generation ~= ARGV[5] then return 'stale' end
redis.call('HSET', KEYS[1], 'state', ARGV[1], 'cause', ARGV[2], 'since', ARGV[3])
redis.call('DEL', KEYS[3])
if ARGV[6] ~= '' then redis.call('SET', KEYS[4], ARGV[6], 'PX', ARGV[7]) end
if ARGV[1] == 'suspended' or ARGV[1] == 'revoked' then
  redis.call('HDEL', KEYS[1], 'tokens', 'intent')
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
if ARGV[1] == 'revoked' then
  local prefix = string.sub(KEYS[1], 1, -(#'grant' + 1))
  for _, member in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
    redis.call('DEL', prefix .. string.match(member, '^[^:]+:(.+)$'))
  end
  redis.call('DEL', KEYS[2])
end
return 'ok'
