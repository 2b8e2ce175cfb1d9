-- KEYS[1] record    ARGV[1] what was read, empty if there was none    ARGV[2] what to write
-- 1: written. 0: somebody else wrote since, an operator's approval perhaps; nothing is changed.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
