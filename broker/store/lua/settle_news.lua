-- Write down which health webhooks were told of a grant, and take its mark off, unless it has changed since it was read.
-- KEYS: grant, mark    ARGV: the mark that was read ('' = none), the health ('' = healthy)
-- 1: it is marked, so there is more to tell. 0: it is not.
if redis.call('EXISTS', KEYS[1]) == 1 then
  if ARGV[2] == '' then redis.call('HDEL', KEYS[1], 'told') else redis.call('HSET', KEYS[1], 'told', ARGV[2]) end
end
local mark = redis.call('GET', KEYS[2])
if mark ~= ARGV[1] then return mark and 1 or 0 end
redis.call('DEL', KEYS[2])
return 0
