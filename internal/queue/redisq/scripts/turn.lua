-- A worker's round trip: finish what it ran, then lease what comes next.
-- ARGV from 5: worker, want, lease ms, nonce, n completions, then for each completion:
--   id, digest, token, nonce, kind, delay ms, reason, busy µs.
-- Returns {verdicts, leases, rev, barred}: a verdict is 0 finished, 1 repeated, 2 refused;
-- a lease is {id, token, failed attempts, deliveries, waited ms, size, content type, trace, reason}.
local STRAYS = 200 -- bounds how many strays of the list one call clears away
local worker, want, lease_ms, nonce = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]

-- A worker that calls is awake. This write also only frees: see lib.lua.
redis.call('DEL', WORKER_WAKE .. worker)

local verdicts, at, back = {}, 10, 0
for i = 1, tonumber(ARGV[9]) do
  local id, digest, seq, token_nonce, kind = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local delay, reason, busy = tonumber(ARGV[at + 5]), ARGV[at + 6], tonumber(ARGV[at + 7])
  local key = ITEM .. id
  local item = redis.call('HMGET', key, 's', 't', 'n')
  local ours = item[2] == seq and item[3] == token_nonce
  if item[1] == 'l' and ours then
    end_lease(id)
    if kind == 'done' or kind == 'skip' then
      redis.call('DEL', key)
      bury_trace(digest)
      count(kind == 'done' and 'done' or 'skipped', 1)
    elseif kind == 'retry' then
      redis.call('HINCRBY', key, 'a', 1)
      redis.call('HSET', key, 's', 'd', 'r', reason)
      redis.call('ZADD', DELAYED, int(now + delay), id)
      count('retried', 1)
    elseif kind == 'defer' then
      redis.call('HSET', key, 's', 'd', 'r', reason)
      redis.call('ZADD', DELAYED, int(now + delay), id)
      count('deferred', 1)
    elseif kind == 'bury' then
      redis.call('HINCRBY', key, 'a', 1)
      redis.call('HSET', key, 's', 'x', 'r', reason)
      redis.call('ZADD', DEAD, int(now), id)
      count('buried', 1)
    else -- release
      redis.call('HINCRBY', key, 'd', -1)
      redis.call('HSET', key, 's', 'w')
      redis.call('LPUSH', PENDING, id)
      count('released', 1)
      back = back + 1
    end
    count('busy_us', busy)
    verdicts[i] = 0
  elseif ours or (not item[1] and is_done(digest)) then
    verdicts[i] = 1
  else
    verdicts[i] = 2
  end
  at = at + 8
end

back = back + reap(100) + promote(100)

local leases = {}
local barred = redis.call('SISMEMBER', BARRED, worker)
if barred == 0 then
  for _ = 1, want + STRAYS do
    local id = #leases < want and redis.call('LPOP', PENDING)
    if not id then break end
    local key = ITEM .. id
    local item = redis.call('HMGET', key, 's', 't', 'a', 'd', 'e', 'z', 'c', 'p', 'r')
    if item[1] == 'w' then -- anything else is a stray entry of the list
      local seq = math.max(tonumber(item[2] or '0') + 1, now_us)
      local deliveries = tonumber(item[4] or '0') + 1
      redis.call('HSET', key, 's', 'l', 't', int(seq), 'n', nonce, 'd', int(deliveries), 'w', worker)
      redis.call('ZADD', LEASES, int(now + lease_ms), id)
      own(id, worker)
      leases[#leases + 1] = {id, int(seq), item[3] or '0', int(deliveries),
        int(math.max(0, now - tonumber(item[5] or now))), item[6] or '0', item[7] or '', item[8] or '', item[9] or ''}
    end
  end
end

redis.call('ZADD', SEEN, int(now), worker)
if want > 0 and #leases == 0 and barred == 0 and redis.call('HEXISTS', HOLDERS, worker) == 0 then
  redis.call('ZADD', IDLE, 'NX', int(now), worker)
else
  redis.call('ZREM', IDLE, worker)
end

if back > #leases then wake_workers(back - #leases) end
if want > 0 and #leases == 0 and barred == 0 and redis.call('LLEN', PENDING) > 0 then
  redis.call('RPUSH', WORKER_WAKE .. worker, '1') -- only strays so far: come again at once
  redis.call('PEXPIRE', WORKER_WAKE .. worker, '60000')
end
if back > 0 or (tonumber(ARGV[9]) > 0 and redis.call('LLEN', PENDING) == 0 and redis.call('ZCARD', LEASES) == 0) then
  wake_scaler() -- there is work that nobody announced, or the last item has ended
end
return {verdicts, leases, redis.call('GET', REV) or '0', barred}
