-- Adds a part of the usage stream to a tenant's sums and moves its position, if it is where the part begins. Answers 0,
-- and changes nothing, if another program was first.
--
-- KEYS: the tenant's position and months (a hash), its reservations of money and their amounts, then the days (hashes).
-- ARGV: the position that the part begins after, the one that it ends with, how many months, each month with what it
-- cost; how many jobs, each job's id; then for each day when it is forgotten, how many lines, and each line with its
-- new sums.
local function add(field, more)
  -- A sum without room stays at its end: an entry that failed here would hold up all others for good.
  local sum = redis.pcall('HINCRBY', KEYS[1], field, more)
  if type(sum) == 'table' then redis.call('HSET', KEYS[1], field, '9223372036854775807') end
end
if (redis.call('HGET', KEYS[1], 'position') or '') ~= ARGV[1] then return 0 end
local at = 4
for _ = 1, tonumber(ARGV[3]) do
  add('cost:' .. ARGV[at], ARGV[at + 1])
  at = at + 2
end
local jobs_end = at + tonumber(ARGV[at])
if redis.call('EXISTS', KEYS[3]) == 1 then
  -- What was reserved for a job ends in the step in which what it cost is added.
  for job = at + 1, jobs_end do
    local amount = redis.call('HGET', KEYS[3], ARGV[job])
    if amount then
      redis.call('HDEL', KEYS[3], ARGV[job])
      if amount ~= '0' then redis.call('HINCRBY', KEYS[3], '*', '-' .. amount) end
      redis.call('ZREM', KEYS[2], ARGV[job])
    end
  end
end
at = jobs_end + 1
for day = 4, #KEYS do
  local last = at + 1 + 2 * tonumber(ARGV[at + 1])
  redis.call('HSET', KEYS[day], unpack(ARGV, at + 2, last))
  redis.call('EXPIREAT', KEYS[day], ARGV[at])
  at = last + 1
end
redis.call('HSET', KEYS[1], 'position', ARGV[2])
return 1
