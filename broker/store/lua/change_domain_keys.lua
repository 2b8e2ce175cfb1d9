-- Change fields of a domain's keys, all of them or none, if each is as expected.
-- KEYS: the domain's keys    ARGV: field, what is expected there, what to write; and so on. Empty: the field is absent.
-- 1: written, or written already: who was not told that it is stored where it must be asks again. 0: somebody else was
-- first; nothing is changed.
local is_written = true
for i = 1, #ARGV, 3 do
  is_written = is_written and (redis.call('HGET', KEYS[1], ARGV[i]) or '') == ARGV[i + 2]
end
if is_written then return 1 end
for i = 1, #ARGV, 3 do
  if (redis.call('HGET', KEYS[1], ARGV[i]) or '') ~= ARGV[i + 1] then return 0 end
end
for i = 1, #ARGV, 3 do
  if ARGV[i + 2] == '' then
    redis.call('HDEL', KEYS[1], ARGV[i])
  else
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
  end
end
return 1
