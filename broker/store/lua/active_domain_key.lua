-- Return the key that seals for a domain, if there is one, and add to how often one of its keys has sealed.
-- KEYS: the domain's keys    ARGV: field that names the key, id of the one that sealed, how often
if ARGV[3] ~= '0' and redis.call('HGET', KEYS[1], 'key:' .. ARGV[2]) then
  redis.call('HINCRBY', KEYS[1], 'seals:' .. ARGV[2], ARGV[3])
end
local id = redis.call('HGET', KEYS[1], ARGV[1])
return id and redis.call('HGET', KEYS[1], 'key:' .. id)
