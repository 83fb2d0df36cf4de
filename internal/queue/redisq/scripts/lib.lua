-- Shared by every script; put in front of it when it is loaded.
--
-- KEYS, the same for all:
--   1 pending LIST (head leaves first)    2 leases ZSET (score: expiry, ms)
--   3 delayed ZSET (score: due, ms)       4 dead ZSET (score: time of death, ms)
--   5 idle ZSET (score: idle since, ms)   6 seen ZSET (score: last sign of life, ms)
--   7 barred SET                          8 holders HASH (worker -> leases held)
--   9 counters HASH                      10 wake LIST of the scaler (at most one entry)
--  11 rev STRING (revision of the settings in force)
--  12 owners HASH (leased item -> worker; the leases by worker, as holders counts them)
-- ARGV, the same for all:
--   1 prefix of item keys   2 prefix of workers' wake keys
--   3 prefix of tombstone sets   4 tombstone life, ms
-- All keys share one hash tag, so those built from the prefixes are in the same slot.
--
-- An item's HASH: s state (w waiting, l leased, d delayed, x dead), a failed attempts,
-- d deliveries, t and n the newest token, e time of enqueue (ms), z size, c content type,
-- p trace context, r reason it came back, w worker. Absent means zero or empty.
--
-- Redis rejects a write that needs memory when there is none, unless the script has
-- already written: scripts that must work then begin with a write that only frees
-- (it counts where it finds nothing to free, too).

local PENDING, LEASES, DELAYED, DEAD = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local IDLE, SEEN, BARRED, HOLDERS = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local COUNTERS, WAKE, REV, OWNERS = KEYS[9], KEYS[10], KEYS[11], KEYS[12]
local ITEM, WORKER_WAKE, DONE = ARGV[1], ARGV[2], ARGV[3]
local DONE_TTL = tonumber(ARGV[4])

local time = redis.call('TIME')
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = math.floor(now_us / 1000)

local function int(n) return string.format('%.0f', n) end

local function count(name, n)
  if n ~= 0 then redis.call('HINCRBY', COUNTERS, name, int(n)) end
end

-- Tombstones live in one SET per quarter of their life.
local PERIOD = math.max(1, math.floor(DONE_TTL / 4))

local function bury_trace(digest)
  local key = DONE .. int(math.floor(now / PERIOD))
  redis.call('SADD', key, digest)
  redis.call('PEXPIRE', key, int(DONE_TTL + PERIOD))
end

local function is_done(digest)
  local last = math.floor(now / PERIOD)
  for period = last, last - 4, -1 do
    if redis.call('SISMEMBER', DONE .. int(period), digest) == 1 then return true end
  end
  return false
end

-- Wakes up to n idle workers, those that went idle last first, so that the others
-- stay idle and can go.
local function wake_workers(n)
  for _ = 1, n do
    local popped = redis.call('ZREVRANGE', IDLE, 0, 0)
    if not popped[1] then return end
    redis.call('ZREM', IDLE, popped[1])
    redis.call('RPUSH', WORKER_WAKE .. popped[1], '1')
    redis.call('PEXPIRE', WORKER_WAKE .. popped[1], '60000')
  end
end

local function wake_scaler()
  if redis.call('LLEN', WAKE) == 0 then redis.call('RPUSH', WAKE, '1') end
end

-- Who holds a lease is not read from the item's hash, which may be gone or be
-- another item's life by now: OWNERS and HOLDERS change together.
local function disown(id)
  local worker = redis.call('HGET', OWNERS, id)
  if not worker then return end
  redis.call('HDEL', OWNERS, id)
  if redis.call('HINCRBY', HOLDERS, worker, -1) <= 0 then redis.call('HDEL', HOLDERS, worker) end
end

local function own(id, worker)
  disown(id)
  redis.call('HSET', OWNERS, id, worker)
  redis.call('HINCRBY', HOLDERS, worker, 1)
end

local function end_lease(id)
  redis.call('ZREM', LEASES, id)
  disown(id)
end

-- A lease whose expiry got lost is given this one, ms: a worker that is alive
-- extends it, and otherwise it is taken back then.
local MENDED_LEASE = 60000

-- Mends what scripts can't cause, but hands can: LEASES, OWNERS and HOLDERS that
-- disagree. Looks at a bounded sample, and only when the numbers don't fit.
local function mend_leases(sample)
  local held, owned = redis.call('ZCARD', LEASES), redis.call('HLEN', OWNERS)
  if held == owned and (owned == 0) == (redis.call('HLEN', HOLDERS) == 0) then return end
  redis.call('DEL', HOLDERS) -- counted anew below; a first write that only frees
  if held < owned then
    for _, id in ipairs(redis.call('HRANDFIELD', OWNERS, sample)) do
      if not redis.call('ZSCORE', LEASES, id) then
        redis.call('ZADD', LEASES, int(now + MENDED_LEASE), id)
      end
    end
  elseif held > owned then
    for _, id in ipairs(redis.call('ZRANDMEMBER', LEASES, sample)) do
      if redis.call('HEXISTS', OWNERS, id) == 0 then
        local item = redis.call('HMGET', ITEM .. id, 's', 'w')
        if item[1] == 'l' then
          redis.call('HSET', OWNERS, id, item[2] or '')
        else
          redis.call('ZREM', LEASES, id)
        end
      end
    end
  end
  for _, worker in ipairs(redis.call('HVALS', OWNERS)) do
    redis.call('HINCRBY', HOLDERS, worker, 1)
  end
end

-- Expired leases go back to the head, the oldest first: they have waited longest.
-- Clearing the nonce makes the old token worthless.
local function reap(limit)
  local n = 0
  local expired = redis.call('ZRANGEBYSCORE', LEASES, '-inf', int(now), 'LIMIT', 0, limit)
  for i = #expired, 1, -1 do
    local id = expired[i]
    local key = ITEM .. id
    end_lease(id)
    if redis.call('HGET', key, 's') == 'l' then
      redis.call('LPUSH', PENDING, id)
      redis.call('HSET', key, 's', 'w', 'n', '')
      n = n + 1
    end
  end
  count('expired', n)
  return n
end

local function promote(limit)
  local n = 0
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', DELAYED, '-inf', int(now), 'LIMIT', 0, limit)) do
    redis.call('ZREM', DELAYED, id)
    if redis.call('HGET', ITEM .. id, 's') == 'd' then
      redis.call('RPUSH', PENDING, id)
      redis.call('HSET', ITEM .. id, 's', 'w')
      n = n + 1
    end
  end
  return n
end
