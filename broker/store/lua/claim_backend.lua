-- Find the backend grant of a purpose, or become the one who asks for it. Finding it makes it stay known.
-- KEYS: pointer, lease    ARGV: owner, lease in ms, how long the pointer lives in ms, a tag that is of no use ("" = none)
local tag = redis.call('GET', KEYS[1])
if tag and tag ~= ARGV[4] then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return {'known', tag}
end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return {'claimed'} end
return {'held'}
