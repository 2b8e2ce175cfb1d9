-- Keep an event for a webhook, due at its time, if it is not there yet and not too many wait.
-- KEYS: event, what is due    ARGV: the event, how long it is kept in ms, its id, when it is due, most that wait
if #redis.call('ZRANGE', KEYS[2], ARGV[5] - 1, ARGV[5] - 1) > 0 then return 0 end
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3])
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
end
return 1
