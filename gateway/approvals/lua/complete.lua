-- What became of a claimed action. ARGV: id, now, token, outcome, note, '1' if a result follows, result.
local id, now, outcome = ARGV[1], ARGV[2], ARGV[4]
local held = keys_at(12)
local state = get(held, 'state')
if not state or get(held, 'token') ~= ARGV[3] then
  return 0
end
if state == outcome and get(held, 'completed') == outcome then
  return 1 -- sent twice; a person who came to the same outcome is not the worker
end
if state == 'UNKNOWN' and get(held, 'reported') ~= outcome then
  -- Fenced: a person decides now. But what the worker says is evidence for that person.
  redis.call('HSET', held.action, 'reported', outcome)
  record(held, id, now, get(held, 'worker'), 'UNKNOWN', 'UNKNOWN', 'reported too late: ' .. outcome)
  return 0
end
if state ~= 'EXECUTING' then
  return 0
end
-- A lease that ran out unnoticed does not void a true outcome: nobody else can have claimed it.
redis.call('HSET', held.action, 'completed', outcome, 'result_error', outcome == 'FAILED' and '1' or '0')
if ARGV[6] == '1' then
  redis.call('SET', held.result, ARGV[7])
  redis.call('ZADD', RESULTS, now, id)
  redis.call('HSET', held.action, 'has_result', '1')
end
move(held, id, outcome, now, get(held, 'worker'), ARGV[5])
return 1
