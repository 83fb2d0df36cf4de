-- Stores the settings of all pipelines under a revision that grows, across data loss too.
-- KEYS: 1 settings HASH (rev, body). ARGV: 1 body. An unchanged body keeps its revision.
-- Returns the revision.
local held = redis.call('HMGET', KEYS[1], 'rev', 'body')
if held[1] and held[2] == ARGV[1] then return held[1] end
local time = redis.call('TIME')
local ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local rev = string.format('%.0f', math.max(tonumber(held[1] or '0') + 1, ms))
redis.call('HSET', KEYS[1], 'rev', rev, 'body', ARGV[1])
return rev
