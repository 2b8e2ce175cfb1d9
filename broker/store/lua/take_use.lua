-- Take one use from each of several counters, or from none where one is at its end or gone.
-- KEYS: counters of uses, of a handle and of those it was exchanged for
for _, counter in ipairs(KEYS) do
  if tonumber(redis.call('GET', counter) or 0) < 1 then return 0 end
end
for _, counter in ipairs(KEYS) do
  redis.call('SET', counter, redis.call('GET', counter) - 1, 'KEEPTTL')
end
return 1
