-- Hold an action, or attach to the one that has the same digest.
-- ARGV: id, now, digest, agent, existing id, result_ttl_s, pending_per_agent_max, pending_max, field, value, ...
local id, now, digest, agent, existing = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local held = keys_at(12)
if redis.call('EXISTS', held.action) == 1 then
  return {'created', id} -- sent twice: the id was chosen by the caller for this one proposal
end
local known = redis.call('HGET', DIGESTS, digest)
if known then
  if known ~= existing then
    return {'look', known} -- the caller names its keys and asks again
  end
  local other = keys_at(15)
  late(other, known, now)
  local state = get(other, 'state')
  local fresh = ANSWERS[state] and tonumber(get(other, 'settled_s')) + tonumber(ARGV[6]) > tonumber(now)
  -- An UNKNOWN one may have happened: until a person has looked, asking again must not start a second.
  if OPEN[state] or state == 'UNKNOWN' or fresh then
    return {'attached', known, all(other)}
  end
end
if tonumber(redis.call('HGET', AGENTS, agent) or 0) >= tonumber(ARGV[7]) then
  return {'limit'}
end
if redis.call('ZCARD', INDEX.PENDING) >= tonumber(ARGV[8]) then
  return {'full'}
end
redis.call('HSET', held.action, 'state', 'PENDING', unpack(ARGV, 9))
redis.call('HSET', DIGESTS, digest, id)
redis.call('HINCRBY', AGENTS, agent, 1)
enter(held, id, 'PENDING', now)
record(held, id, now, agent, '', 'PENDING', '')
return {'created', id}
