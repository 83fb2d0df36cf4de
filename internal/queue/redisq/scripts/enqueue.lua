-- Adds the items that are neither known nor done.
-- ARGV from 5: n, then for each item: id, digest, size, content type, trace context.
-- Returns for each item: 0 added, 1 duplicate of a live item, 2 duplicate of a done one.
--
-- A live item whose entry somebody's hands deleted is put back into its place: sending
-- it again is the natural remedy. Only a list that still has others can't be checked.
local function mend(id, state)
  if state == 'w' and redis.call('LLEN', PENDING) == 0 then
    redis.call('RPUSH', PENDING, id)
    return 1
  elseif state == 'l' and not redis.call('ZSCORE', LEASES, id) then
    redis.call('ZADD', LEASES, int(now + MENDED_LEASE), id)
  elseif state == 'd' and not redis.call('ZSCORE', DELAYED, id) then
    redis.call('ZADD', DELAYED, int(now), id)
  elseif state == 'x' and not redis.call('ZSCORE', DEAD, id) then
    redis.call('ZADD', DEAD, int(now), id)
  end
  return 0
end

local n, at = tonumber(ARGV[5]), 6
local answers, added, mended = {}, 0, 0
for i = 1, n do
  local id, digest = ARGV[at], ARGV[at + 1]
  local key = ITEM .. id
  local state = redis.call('HGET', key, 's')
  if state then
    answers[i] = 1
    mended = mended + mend(id, state)
  elseif is_done(digest) then
    answers[i] = 2
  else
    local fields = {'s', 'w', 'e', int(now)}
    if ARGV[at + 2] ~= '0' then fields[#fields + 1] = 'z'; fields[#fields + 1] = ARGV[at + 2] end
    if ARGV[at + 3] ~= '' then fields[#fields + 1] = 'c'; fields[#fields + 1] = ARGV[at + 3] end
    if ARGV[at + 4] ~= '' then fields[#fields + 1] = 'p'; fields[#fields + 1] = ARGV[at + 4] end
    redis.call('HSET', key, unpack(fields))
    redis.call('RPUSH', PENDING, id)
    answers[i] = 0
    added = added + 1
  end
  at = at + 5
end
count('enqueued', added)
count('duplicates', n - added)
if added + mended > 0 then
  wake_workers(added + mended)
  wake_scaler()
end
return answers
