-- Write down what became of an event of a webhook; one that is gone stays gone. What is kept of it keeps its end.
-- KEYS: event, what is due, what is dead    ARGV: its id, 'heard' or 'again' or 'dead', the event, a time in s
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
if ARGV[2] == 'heard' then
  redis.call('DEL', KEYS[1])
elseif redis.call('EXISTS', KEYS[1]) == 1 then
  local list = ARGV[2] == 'again' and KEYS[2] or KEYS[3]
  local left = redis.call('PTTL', KEYS[1])
  redis.call('SET', KEYS[1], ARGV[3], 'KEEPTTL')
  redis.call('ZADD', list, ARGV[4], ARGV[1])
  if redis.call('PTTL', list) < left then redis.call('PEXPIRE', list, left) end
end
return 'ok'
