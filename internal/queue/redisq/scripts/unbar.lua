-- Lets the workers named from ARGV[5] lease again, or all where none is named. Returns how many.
local workers = {}
for i = 5, #ARGV do workers[#workers + 1] = ARGV[i] end
if #workers == 0 then workers = redis.call('SMEMBERS', BARRED) end
local n = 0
for _, worker in ipairs(workers) do
  if redis.call('SREM', BARRED, worker) == 1 then
    redis.call('RPUSH', WORKER_WAKE .. worker, '1')
    redis.call('PEXPIRE', WORKER_WAKE .. worker, '60000')
    n = n + 1
  end
end
return n
