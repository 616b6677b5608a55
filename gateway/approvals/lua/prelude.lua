-- Shared by every script of the queue. EDGES, OPEN, TERMINAL, ANSWERS and CHANGES_MAX are written above this line from
-- the tables in Python. All keys carry one hash tag and are declared; every script gets them in this order.
local INDEX = {PENDING = KEYS[1], APPROVED = KEYS[2], EXECUTING = KEYS[3], UNKNOWN = KEYS[4]}
local CLOSED, RECENT, RESULTS, DIGESTS, AGENTS, COUNTS, CHANGES =
  KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]

-- The three keys of one action, from the nth on.
local function keys_at(n)
  return {action = KEYS[n], events = KEYS[n + 1], result = KEYS[n + 2]}
end

local function get(held, field)
  return redis.call('HGET', held.action, field)
end

local function all(held)
  return redis.call('HGETALL', held.action)
end

-- Where a state is indexed and by what: open ones by their deadline, so that what is due is always at the front.
local function enter(held, id, state, now)
  local score = now
  if state == 'PENDING' or state == 'APPROVED' then
    score = get(held, 'expires_s')
  elseif state == 'EXECUTING' then
    score = get(held, 'lease_until_s')
  end
  redis.call('ZADD', INDEX[state] or CLOSED, score, id)
  redis.call('HINCRBY', COUNTS, state, 1)
end

local function leave(held, id, state)
  redis.call('ZREM', INDEX[state] or CLOSED, id)
  redis.call('HINCRBY', COUNTS, state, -1)
  if state == 'PENDING' then
    local agent = get(held, 'agent')
    if redis.call('HINCRBY', AGENTS, agent, -1) <= 0 then
      redis.call('HDEL', AGENTS, agent)
    end
  end
end

-- One line of the action's life, and one wake-up call. The numbers of the calls have no holes, so a reader that
-- missed one knows it.
local function record(held, id, now, who, from, to, note)
  redis.call('RPUSH', held.events, cjson.encode(
    {at_s = now, who = who, source = from, target = to, digest = get(held, 'digest'), note = note}))
  local number = redis.call('HINCRBY', COUNTS, 'changes', 1)
  redis.call('XADD', CHANGES, 'MAXLEN', '~', CHANGES_MAX, '*', 'n', number, 'id', id, 'state', to)
end

-- The only place where a state changes. False where the table has no such edge.
local function move(held, id, to, now, who, note)
  local from = get(held, 'state')
  if not from or not EDGES[from .. '>' .. to] then
    return false
  end
  leave(held, id, from)
  redis.call('HSET', held.action, 'state', to, 'changed_s', now)
  if not OPEN[to] then
    redis.call('HSET', held.action, 'settled_s', now, 'settled_by', who, 'note', note)
  end
  enter(held, id, to, now)
  redis.call('ZADD', RECENT, now, id)
  record(held, id, now, who, from, to, note)
  return true
end

-- Time is checked where it matters, not only by the sweeper: whether a deadline has just made this action EXPIRED.
local function late(held, id, now)
  local state = get(held, 'state')
  if (state == 'PENDING' or state == 'APPROVED') and tonumber(get(held, 'expires_s')) <= tonumber(now) then
    return move(held, id, 'EXPIRED', now, 'gateway', 'nobody ran it in time')
  end
  return false
end

-- The same for a lease: whoever claimed it did not say what became of it.
local function lapsed(held, id, now)
  if get(held, 'state') == 'EXECUTING' and tonumber(get(held, 'lease_until_s')) <= tonumber(now) then
    return move(held, id, 'UNKNOWN', now, 'gateway', 'its worker did not report an outcome in time')
  end
  return false
end
