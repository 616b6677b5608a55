-- The one compare-and-set that lets an approved action run. ARGV: id, now, token, worker, lease_s.
local id, now, token = ARGV[1], ARGV[2], ARGV[3]
local held = keys_at(12)
local state = get(held, 'state')
if state == 'EXECUTING' and get(held, 'token') == token then
  return {tonumber(get(held, 'fence')), all(held)} -- sent twice: the token was chosen for this one claim
end
if late(held, id, now) or state ~= 'APPROVED' then
  return false
end
local fence = redis.call('HINCRBY', held.action, 'fence', 1)
local until_s = string.format('%.6f', tonumber(now) + tonumber(ARGV[5]))
redis.call('HSET', held.action, 'token', token, 'worker', ARGV[4], 'lease_until_s', until_s)
move(held, id, 'EXECUTING', now, ARGV[4], '')
return {fence, all(held)}
