-- Whatever time has made due for one action. ARGV: id, now, result_ttl_s, retention_s. Returns what was done.
local id, now = ARGV[1], tonumber(ARGV[2])
local held = keys_at(12)
local state = get(held, 'state')
if not state then
  for index = 1, 7 do
    redis.call('ZREM', KEYS[index], id) -- its hash was deleted by hand: do not find it due for ever
  end
  return 'gone'
end
if late(held, id, ARGV[2]) then
  return 'expired'
end
if lapsed(held, id, ARGV[2]) then
  return 'lapsed'
end
local done = 'nothing'
local resulted = redis.call('ZSCORE', RESULTS, id)
if resulted and tonumber(resulted) + tonumber(ARGV[3]) <= now then
  redis.call('DEL', held.result)
  redis.call('ZREM', RESULTS, id)
  redis.call('HDEL', held.action, 'has_result')
  done = 'result'
end
if TERMINAL[state] and tonumber(get(held, 'changed_s')) + tonumber(ARGV[4]) <= now then
  local digest = get(held, 'digest')
  if redis.call('HGET', DIGESTS, digest) == id then
    redis.call('HDEL', DIGESTS, digest)
  end
  leave(held, id, state)
  redis.call('ZREM', RECENT, id)
  redis.call('ZREM', RESULTS, id)
  redis.call('DEL', held.action, held.events, held.result)
  return 'removed'
end
return done
