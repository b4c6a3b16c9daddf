-- Money that is reserved within a tenant's budget: MONEY is a sorted set of reservations by when they end, AMOUNTS a
-- hash of what each is for, with the total under '*', which no reservation is called. USAGE has what each month cost;
-- what is summed up there leaves the reservations in the same step, so nothing is counted twice or not at all.
local MONEY, AMOUNTS, USAGE = KEYS[5], KEYS[6], KEYS[7]
-- Longer than any reservation: both keys end by themselves, whatever becomes of their tenant.
local MONEY_TTL_S = 40 * 86400

local function release(reservation)
  local amount = redis.call('HGET', AMOUNTS, reservation)
  if amount then
    redis.call('HDEL', AMOUNTS, reservation)
    if amount ~= '0' then redis.call('HINCRBY', AMOUNTS, '*', '-' .. amount) end
  end
  redis.call('ZREM', MONEY, reservation)
end

local function hold(reservation, amount, for_ms)
  release(reservation)
  redis.call('ZADD', MONEY, now_us + for_ms * 1000, reservation)
  redis.call('HSET', AMOUNTS, reservation, amount)
  redis.call('HINCRBY', AMOUNTS, '*', amount)
  redis.call('EXPIRE', MONEY, MONEY_TTL_S)
  redis.call('EXPIRE', AMOUNTS, MONEY_TTL_S)
end

-- All that is reserved, after those have ended whose time is over. A thousand at once: the others end with the next
-- call.
local function held()
  for _, reservation in ipairs(redis.call('ZRANGEBYSCORE', MONEY, '-inf', now_us, 'LIMIT', 0, 1000)) do
    release(reservation)
  end
  return tonumber(redis.call('HGET', AMOUNTS, '*')) or 0
end
