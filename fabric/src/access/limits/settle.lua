-- Ends a request that was in flight: ARGV[4] is the slice that its tokens were counted in, ARGV[5] how many more (or
-- fewer) it took. ARGV[6] is its reservation of money, if it is to be changed: to ARGV[7] for ARGV[8] more
-- milliseconds, until what it cost is summed up, or to nothing. Answers 1, or 0 if it was settled before or its lease
-- is over: then nothing changes.
if redis.call('ZREM', IN_FLIGHT, id) == 0 then return 0 end
local slice, more = tonumber(ARGV[4]), tonumber(ARGV[5])
if more ~= 0 then
  local window = advance()
  if more > 0 then
    count(window, 'tokens', window.slice, more)
    save(window)
  elseif slice <= window.slice and slice >= window.slice - SLICES then
    -- Taken off where it was counted, and never more than is counted there: Redis may have lost it.
    local counted = tonumber(redis.call('HGET', WINDOW, 'tokens' .. slice % (SLICES + 1))) or 0
    local less = math.min(-more, counted)
    if less > 0 then
      count(window, 'tokens', slice, -less)
      save(window)
    end
  end
end
if ARGV[6] ~= '' then
  if ARGV[7] == '0' then release(ARGV[6]) else hold(ARGV[6], ARGV[7], ARGV[8]) end
end
if line_length() > 0 then call_next() end
return 1
