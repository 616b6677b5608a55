-- Cancel, invalidate, or reconcile. ARGV: id, now, target, who, note, the only state it may come from or ''.
local id, now, target, who = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local held = keys_at(12)
local state = get(held, 'state')
if not state then
  return {'missing'}
end
if late(held, id, now) or state == 'EXPIRED' then
  return {'late', all(held)}
end
if state == target and get(held, 'settled_by') == who then
  return {'ok', all(held)} -- sent twice
end
if (ARGV[6] ~= '' and state ~= ARGV[6]) or not move(held, id, target, now, who, ARGV[5]) then
  return {'refused', state}
end
if target == 'FAILED' then
  redis.call('HSET', held.action, 'result_error', '1')
end
return {'ok', all(held)}
