-- A sliding window of SLICES slices over requests and tokens, with running totals. All scripts begin with this.
--
-- KEYS[1] is a hash: `slice` is the latest slice of time that was counted in, `requests` and `tokens` are the totals,
-- and `requests<n>`, `tokens<n>` the counts of one slice, n being its number modulo SLICES + 1. What was counted in a
-- slice leaves the totals SLICES + 1 slices later, so a window is never shorter than SLICES slices, whenever it began.
local SLICES = 240

local WINDOW, IN_FLIGHT, WAITING, WAITING_UNTIL = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, slice_us, turns = ARGV[1], tonumber(ARGV[2]), ARGV[3]

-- All times are of this server's clock: those of the gateway's replicas differ.
local time = redis.call('TIME')
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])

-- The window as it is now, after what has left it was taken off the totals.
local function advance()
  local slice = math.floor(now_us / slice_us)
  local head = redis.call('HMGET', WINDOW, 'slice', 'requests', 'tokens')
  local last = tonumber(head[1])
  local window = { slice = slice, requests = 0, tokens = 0 }
  if not last then return window end
  -- All of it has left; or the clock was set back by more than a window, after which the counts mean nothing.
  if slice > last + SLICES or slice < last - SLICES then
    redis.call('DEL', WINDOW)
    return window
  end
  window.requests, window.tokens = tonumber(head[2]), tonumber(head[3])
  -- The clock was set back a little: time stands still until it has come as far again.
  if slice <= last then
    window.slice = last
    return window
  end
  local fields = {}
  for number = last + 1, slice do
    local n = number % (SLICES + 1)
    fields[#fields + 1] = 'requests' .. n
    fields[#fields + 1] = 'tokens' .. n
  end
  local left = redis.call('HMGET', WINDOW, unpack(fields))
  for i = 1, #left, 2 do
    window.requests = window.requests - (tonumber(left[i]) or 0)
    window.tokens = window.tokens - (tonumber(left[i + 1]) or 0)
  end
  redis.call('HDEL', WINDOW, unpack(fields))
  redis.call('HSET', WINDOW, 'slice', slice, 'requests', window.requests, 'tokens', window.tokens)
  return window
end

-- Counts `amount`, which may be negative, in a slice and in the total. `save` comes after the last of these.
local function count(window, what, slice, amount)
  window[what] = window[what] + amount
  redis.call('HINCRBY', WINDOW, what .. slice % (SLICES + 1), amount)
end

local function save(window)
  redis.call('HSET', WINDOW, 'slice', window.slice, 'requests', window.requests, 'tokens', window.tokens)
  redis.call('PEXPIRE', WINDOW, math.ceil(2 * (SLICES + 1) * slice_us / 1000))
end

-- Takes a request out of the line of those that wait.
local function leave_line(waiter)
  redis.call('ZREM', WAITING, waiter)
  redis.call('ZREM', WAITING_UNTIL, waiter)
end

-- How many wait, after those were dropped whose gateway has not asked for them again in time.
local function line_length()
  local length = redis.call('ZCARD', WAITING)
  if length == 0 then return 0 end
  local gone = redis.call('ZRANGEBYSCORE', WAITING_UNTIL, '-inf', now_us)
  for _, waiter in ipairs(gone) do leave_line(waiter) end
  return length - #gone
end

-- Names the first of the line to all replicas: the one that has it asks again at once.
local function call_next()
  local first = redis.call('ZRANGE', WAITING, 0, 0)[1]
  if first then redis.call('PUBLISH', turns, first) end
end
