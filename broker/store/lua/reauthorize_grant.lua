-- Write a grant's next generation from a new authorization, and use up the link that led to it. A refresh that is under
-- way is fenced by the generation, whatever its answer. Written twice, it is written once; the same record is the one
-- whose bytes from the 70th on are the same, as in commit_grant.
-- KEYS: grant, lease, link, mark    ARGV: generation that was read, lifetime in ms, the sealed tokens, a new mark ('' =
--                                         nobody is to be told), how long it stays in ms, then field, value, …
local state, generation, tokens = unpack(redis.call('HMGET', KEYS[1], 'state', 'generation', 'tokens'))
if not generation then return 'gone' end
if tokens and string.sub(tokens, 70) == string.sub(ARGV[3], 70) then return 'ok' end
if state == 'revoked' then return 'revoked' end
if redis.call('EXISTS', KEYS[3]) == 0 then return 'used' end
if generation ~= ARGV[1] then return 'stale' end
redis.call('HSET', KEYS[1], 'tokens', ARGV[3], unpack(ARGV, 6))
redis.call('HDEL', KEYS[1], 'intent', 'cause', 'trouble')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[2], KEYS[3])
if ARGV[4] ~= '' then redis.call('SET', KEYS[4], ARGV[4], 'PX', ARGV[5]) end
return 'ok'
