-- Renews the lease of a request in flight for ARGV[4] milliseconds. One that ran out, or that Redis has lost, is
-- entered again: the request is in flight all the same.
redis.call('ZADD', IN_FLIGHT, now_us + ARGV[4] * 1000, id)
redis.call('PEXPIRE', IN_FLIGHT, ARGV[4])
-- Its money too, if some is reserved under its name.
if redis.call('ZSCORE', MONEY, id) then redis.call('ZADD', MONEY, now_us + ARGV[4] * 1000, id) end
return 1
