-- Store a handle, and a refresh handle beside it where there is one, if the grant is alive. A refresh handle is spent for
-- it once; a second time only where that may be forgiven (the answer was lost), and nobody has used the refresh handle
-- that was issued then. That pair ends: its handle is gone, its refresh handle counts as spent, so that whoever comes
-- with it is told from somebody who knows nothing.
-- KEYS: grant, handle index, handle, refresh handle, spent refresh handle (these two unread where there is none), the
--       mark of an ended family
-- ARGV: now in ms, handle's lifetime in ms, sealed handle, its member, refresh handle's lifetime in ms (0 = none),
--       sealed refresh handle, its member, "1" if a refresh handle is spent for this, for how long in ms it is forgiven
local prefix = string.sub(KEYS[1], 1, -(#'grant' + 1))
local function end_pair(handle, refresh)
  local exchanged = prefix .. 'exchanged:' .. handle
  for _, way in ipairs(redis.call('ZRANGE', exchanged, 0, -1)) do
    local last = string.match(way, '[^:]+$')
    redis.call('DEL', prefix .. 'handle:' .. last, prefix .. 'uses:' .. last)
  end
  redis.call('DEL', exchanged, prefix .. 'handle:' .. handle)
  redis.call('HSET', prefix .. refresh, 'used', '1')
end
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return 'gone' end
if state == 'revoked' then return state end
if redis.call('EXISTS', KEYS[6]) == 1 then return 'ended' end
local now, lifetime, refresh_lifetime = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[5])
if ARGV[8] == '1' then
  local spent, at, handle, refresh = unpack(redis.call('HMGET', KEYS[5], 'used', 'used_at', 'handle', 'refresh'))
  if not spent then return 'unknown' end
  if spent == '1' then
    local is_late = not refresh or now - tonumber(at) > tonumber(ARGV[9])
    if ARGV[9] == '0' or is_late or redis.call('HGET', prefix .. refresh, 'used') ~= '0' then return 'reused' end
    end_pair(handle, refresh)
    redis.call('HDEL', KEYS[5], 'handle', 'refresh')
  else
    redis.call('HSET', KEYS[5], 'used', '1', 'used_at', ARGV[1])
    if refresh_lifetime > 0 then
      redis.call('HSET', KEYS[5], 'handle', string.match(KEYS[3], '[^:]+$'), 'refresh', string.sub(KEYS[4], #prefix + 1))
    end
  end
end
redis.call('SET', KEYS[3], ARGV[3], 'PX', lifetime)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZADD', KEYS[2], now + lifetime, ARGV[4])
if refresh_lifetime > 0 then
  redis.call('HSET', KEYS[4], 'used', '0', 'sealed', ARGV[6])
  redis.call('PEXPIRE', KEYS[4], refresh_lifetime)
  redis.call('ZADD', KEYS[2], now + refresh_lifetime, ARGV[7])
end
local longest = math.max(lifetime, refresh_lifetime)
if redis.call('PTTL', KEYS[2]) < longest then redis.call('PEXPIRE', KEYS[2], longest) end
return 'ok'
