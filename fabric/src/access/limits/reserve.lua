-- Reserves all that a request needs, or nothing.
--
-- ARGV from 4 on: the limits on requests, tokens and requests in flight (0 for none), the tokens that the request needs,
-- the milliseconds of a lease and of waiting before asking again, and the most that may wait (0 if this one does not);
-- the budget (0 for none) with its month, and the money that the request needs: the reservation's name, the amount, and
-- the milliseconds that it holds.
--
-- Answers: verdict, slice, requests, tokens, in flight, microseconds until all of the window is free again,
-- microseconds until this request fits, and what of the budget is spent or reserved.
local function limit(n) return n == '0' and math.huge or tonumber(n) end

local requests_max, tokens_max, in_flight_max = limit(ARGV[4]), limit(ARGV[5]), limit(ARGV[6])
local tokens, lease_ms, patience_ms, waiting_max = tonumber(ARGV[7]), ARGV[8], ARGV[9], tonumber(ARGV[10])

local budget, month, reservation, money, money_ms = ARGV[11], ARGV[12], ARGV[13], ARGV[14], ARGV[15]
local spent = 0

local window = advance()
redis.call('ZREMRANGEBYSCORE', IN_FLIGHT, '-inf', now_us)
local in_flight = redis.call('ZCARD', IN_FLIGHT)
local length = line_length()
local position = length > 0 and redis.call('ZRANK', WAITING, id)
local ahead = position or length

-- Microseconds until `need` more fit under `max`. A slice is free SLICES + 1 slices after it began. The oldest are read
-- a few at a time: mostly the first few suffice.
local function fits_in(what, need, max)
  local used = window[what]
  for first = window.slice - SLICES, window.slice, 16 do
    local fields = {}
    for number = first, math.min(first + 15, window.slice) do
      fields[#fields + 1] = what .. number % (SLICES + 1)
    end
    for i, counted in ipairs(redis.call('HMGET', WINDOW, unpack(fields))) do
      used = used - (tonumber(counted) or 0)
      if used + need <= max then return (first + i + SLICES) * slice_us - now_us end
    end
  end
  return (SLICES + 1) * slice_us
end

local function answer(verdict, retry_us)
  local is_empty = window.requests == 0 and window.tokens == 0
  local reset_us = is_empty and 0 or (window.slice + SLICES + 1) * slice_us - now_us
  return { verdict, window.slice, window.requests, window.tokens, in_flight, reset_us, retry_us, spent }
end

if budget ~= '0' and money ~= '0' then
  spent = held() + (tonumber(redis.call('HGET', USAGE, 'cost:' .. month)) or 0)
  -- Its own, if the request is repeated, is not in its way.
  spent = spent - (tonumber(redis.call('HGET', AMOUNTS, reservation)) or 0)
  if spent + tonumber(money) > tonumber(budget) then
    if position then
      leave_line(id)
      call_next()
    end
    return answer('budget', 0)
  end
end
if in_flight + ahead >= in_flight_max then
  local may_wait = position or length < waiting_max
  if waiting_max == 0 or not may_wait then return answer('in_flight', 0) end
  redis.call('ZADD', WAITING, 'NX', now_us, id)
  redis.call('ZADD', WAITING_UNTIL, now_us + patience_ms * 1000, id)
  redis.call('PEXPIRE', WAITING, patience_ms)
  redis.call('PEXPIRE', WAITING_UNTIL, patience_ms)
  return answer('waiting', 0)
end
if position then leave_line(id) end
local for_requests = window.requests + 1 > requests_max and fits_in('requests', 1, requests_max) or 0
local for_tokens = window.tokens + tokens > tokens_max and fits_in('tokens', tokens, tokens_max) or 0
if for_requests > 0 or for_tokens > 0 then
  -- The turn that this one had is the next one's.
  if position then call_next() end
  local verdict = for_requests >= for_tokens and 'requests' or 'tokens'
  return answer(verdict, math.max(for_requests, for_tokens))
end
count(window, 'requests', window.slice, 1)
if tokens > 0 then count(window, 'tokens', window.slice, tokens) end
save(window)
redis.call('ZADD', IN_FLIGHT, now_us + lease_ms * 1000, id)
redis.call('PEXPIRE', IN_FLIGHT, lease_ms)
if budget ~= '0' and money ~= '0' then hold(reservation, money, money_ms) end
in_flight = in_flight + 1
-- Several slots may have become free before the first of the line had asked.
if position and in_flight < in_flight_max then call_next() end
return answer('granted', 0)
