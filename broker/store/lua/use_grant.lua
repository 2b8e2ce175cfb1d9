-- Write down when a grant was last used, if it is there: it is not made by this.
-- KEYS: grant    ARGV: now, in seconds
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'used_at', ARGV[1]) end
return 'ok'
