-- End the turn of whoever asked for a backend grant, and say which grant is the one: another one's, if the lease ran out
-- and somebody else was quicker.
-- KEYS: pointer, lease    ARGV: owner, tag ("" = none was issued), how long the pointer lives in ms
local is_ours = redis.call('GET', KEYS[2]) == ARGV[1]
if is_ours then redis.call('DEL', KEYS[2]) end
if ARGV[2] ~= '' and (is_ours or not redis.call('GET', KEYS[1])) then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return redis.call('GET', KEYS[1])
