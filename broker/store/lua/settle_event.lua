-- Write down what became of an event of a webhook; one that was heard or is gone stays so. What is kept keeps its end. Of
-- one that was heard a mark stays for a while: whoever makes the same event again is to find that it was there.
-- KEYS: event, what is due, what is dead    ARGV: its id, 'heard' or 'again' or 'dead', the event, a time in s, how long
--                                                 the mark stays in ms
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
if ARGV[2] == 'heard' then
  redis.call('SET', KEYS[1], '', 'PX', ARGV[5])
elseif (redis.call('GET', KEYS[1]) or '') ~= '' then
  local list = ARGV[2] == 'again' and KEYS[2] or KEYS[3]
  local left = redis.call('PTTL', KEYS[1])
  redis.call('SET', KEYS[1], ARGV[3], 'KEEPTTL')
  redis.call('ZADD', list, ARGV[4], ARGV[1])
  if redis.call('PTTL', list) < left then redis.call('PEXPIRE', list, left) end
end
return 'ok'
