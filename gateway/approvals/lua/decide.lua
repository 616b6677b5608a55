-- One person's vote. ARGV: id, now, verdict, person, digest, comment, group, ...
local id, now, verdict, person = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local held = keys_at(12)
local state = get(held, 'state')
if not state then
  return {'missing'}
end
if get(held, 'digest') ~= ARGV[5] then
  return {'digest'} -- what the person saw is not what would run
end
local member, group = false, get(held, 'group')
for i = 7, #ARGV do
  member = member or ARGV[i] == group
end
if not member then
  return {'group'}
end
if get(held, 'separation') == '1' and (person == get(held, 'owner') or person == get(held, 'agent')) then
  return {'separation'}
end
if late(held, id, now) or state == 'EXPIRED' then
  return {'late', all(held)}
end
local before = get(held, 'vote:' .. person)
before = before and string.match(before, '^%a+')
if before == verdict then
  return {'ok', all(held)} -- sent twice: a person counts once
end
if state ~= 'PENDING' then
  return {'refused', state}
end
redis.call('HSET', held.action, 'vote:' .. person, verdict .. ' ' .. now .. ' ' .. ARGV[6])
if verdict == 'deny' then
  move(held, id, 'DENIED', now, person, ARGV[6]) -- final at once, also over an own earlier approval
elseif redis.call('HINCRBY', held.action, 'approvals', 1) >= tonumber(get(held, 'quorum')) then
  move(held, id, 'APPROVED', now, person, ARGV[6])
else
  record(held, id, now, person, 'PENDING', 'PENDING', ARGV[6])
end
return {'ok', all(held)}
