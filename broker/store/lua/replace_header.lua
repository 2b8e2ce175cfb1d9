-- Put a sealed record under another key, by its first 69 bytes, or delete it, if nobody has written it since it was read:
-- each sealing wraps a data key of its own, so those bytes are those of no other version. Its expiry stays.
-- KEYS[1] record    ARGV[1] field of the hash, empty for a string    ARGV[2] the bytes that were read
--                   ARGV[3] what to put there, empty: delete the record
-- 1: done. 0: it is another one by now, or gone; nothing is changed.
local is_hash = ARGV[1] ~= ''
local found = is_hash and redis.call('HGET', KEYS[1], ARGV[1]) or not is_hash and redis.call('GET', KEYS[1]) or ''
if string.sub(found, 1, 69) ~= ARGV[2] then return 0 end
if ARGV[3] == '' then
  redis.call('DEL', KEYS[1])
elseif is_hash then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3] .. string.sub(found, 70))
else
  redis.call('SET', KEYS[1], ARGV[3] .. string.sub(found, 70), 'KEEPTTL')
end
return 1
