-- Write a sealed record over the one that was read. Its first 69 bytes say under which key it is sealed, and a rotation
-- may have replaced them since: the same record is the one whose other bytes are the same.
-- KEYS[1] record    ARGV[1] what was read, empty if there was none    ARGV[2] what to write
-- 1: written. 0: somebody else wrote since, an operator's approval perhaps; nothing is changed.
local found = redis.call('GET', KEYS[1]) or ''
if #found ~= #ARGV[1] or string.sub(found, 70) ~= string.sub(ARGV[1], 70) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
