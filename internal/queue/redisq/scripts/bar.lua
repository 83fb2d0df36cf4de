-- Bars idle workers, longest idle first, until ARGV[5] are barred in all. Returns all barred.
for _ = redis.call('SCARD', BARRED) + 1, tonumber(ARGV[5]) do
  local worker = redis.call('ZRANGE', IDLE, 0, 0)[1]
  if not worker then break end
  redis.call('ZREM', IDLE, worker)
  redis.call('SADD', BARRED, worker)
  redis.call('RPUSH', WORKER_WAKE .. worker, '1')
  redis.call('PEXPIRE', WORKER_WAKE .. worker, '60000')
end
return redis.call('SMEMBERS', BARRED)
