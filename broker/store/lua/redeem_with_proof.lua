-- Read a handle and its grant, and take note of the DPoP proof that came along; of a handle that is not there, none.
-- KEYS: handle, grant, mark of the proof    ARGV: how long the proof could be shown again, in ms
local sealed = redis.call('GET', KEYS[1])
if not sealed then return {false} end
local fresh = redis.call('SET', KEYS[3], '1', 'NX', 'PX', ARGV[1])
return {sealed, redis.call('HGETALL', KEYS[2]), fresh and 1 or 0}
