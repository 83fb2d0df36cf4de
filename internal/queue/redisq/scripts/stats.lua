-- One consistent reading. Also takes expired leases back, promotes due retries and forgets
-- idle workers that have given no sign of life, and clears strays away (see lib.lua). ARGV[5]: ms after which they are forgotten.
-- Returns {waiting, leased, delayed, due, dead, oldest ms, next due ms, next expiry ms,
-- holders, idle, barred names, counters as a flat list}; -1 stands for none.
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', SEEN, '-inf', int(now - tonumber(ARGV[5])), 'LIMIT', 0, 100)) do
  redis.call('ZREM', IDLE, worker)
  redis.call('ZREM', SEEN, worker)
end
mend_leases(200)
local back = reap(500) + promote(500)
if back > 0 then wake_workers(back) end

local oldest = 0
for _ = 1, 200 do -- the head may be a stray entry, which is no work
  local head = redis.call('LINDEX', PENDING, 0)
  if not head then break end
  local item = redis.call('HMGET', ITEM .. head, 's', 'e')
  if item[1] == 'w' then
    oldest = math.max(0, now - tonumber(item[2] or now))
    break
  end
  redis.call('LPOP', PENDING)
end

local function until_first(key)
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if not first[2] then return '-1' end
  return int(math.max(0, tonumber(first[2]) - now))
end
return {redis.call('LLEN', PENDING), redis.call('ZCARD', LEASES), redis.call('ZCARD', DELAYED),
  redis.call('ZCOUNT', DELAYED, '-inf', int(now)), redis.call('ZCARD', DEAD), int(oldest),
  until_first(DELAYED), until_first(LEASES), redis.call('HLEN', HOLDERS),
  redis.call('ZCARD', IDLE) + redis.call('SCARD', BARRED), redis.call('SMEMBERS', BARRED),
  redis.call('HGETALL', COUNTERS)}
