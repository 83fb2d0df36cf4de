-- Prolongs leases. ARGV from 5: worker, ms, n, then for each lease: id, token, nonce.
-- Returns the positions (from 1) of the leases that are lost.
-- It leaves the idle alone: a late heartbeat may arrive after the Turn in which its
-- worker finished and registered as idle.
redis.call('DEL', WORKER_WAKE) -- nobody's; a first write that only frees: see lib.lua
redis.call('ZADD', SEEN, int(now), ARGV[5])
local lost, at = {}, 8
for i = 1, tonumber(ARGV[7]) do
  local item = redis.call('HMGET', ITEM .. ARGV[at], 's', 't', 'n')
  if item[1] == 'l' and item[2] == ARGV[at + 1] and item[3] == ARGV[at + 2] then
    redis.call('ZADD', LEASES, int(now + tonumber(ARGV[6])), ARGV[at])
  else
    lost[#lost + 1] = i
  end
  at = at + 3
end
return lost
