-- Forgets an idle worker that goes away. ARGV from 5: worker. Returns nothing of interest.
-- If it was woken for an item that it won't take any more, another is woken instead.
redis.call('ZREM', IDLE, ARGV[5])
redis.call('ZREM', SEEN, ARGV[5])
redis.call('DEL', WORKER_WAKE .. ARGV[5])
if redis.call('LLEN', PENDING) > 0 then wake_workers(1) end
return {}
