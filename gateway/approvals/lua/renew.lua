-- Extend a lease that has not run out. ARGV: id, now, token, lease_s.
local id, now = ARGV[1], ARGV[2]
local held = keys_at(12)
if lapsed(held, id, now) or get(held, 'state') ~= 'EXECUTING' or get(held, 'token') ~= ARGV[3] then
  return 0
end
local until_s = string.format('%.6f', tonumber(now) + tonumber(ARGV[4]))
redis.call('HSET', held.action, 'lease_until_s', until_s)
redis.call('ZADD', INDEX.EXECUTING, until_s, id)
return 1
