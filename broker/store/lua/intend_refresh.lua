-- Write down, right before the token request is sent, that it may have been sent; the lease starts anew. A holder whose
-- lease is gone sends nothing: that it was given back may have overtaken this on the way here.
-- KEYS: grant, lease    ARGV: owner, lease in ms, generation
local state, generation = unpack(redis.call('HMGET', KEYS[1], 'state', 'generation'))
if (state ~= 'active' and state ~= 'uncertain') or generation ~= ARGV[3] or redis.call('GET', KEYS[2]) ~= ARGV[1] then return 'fenced' end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
redis.call('HSET', KEYS[1], 'intent', ARGV[1])
return 'ok'
