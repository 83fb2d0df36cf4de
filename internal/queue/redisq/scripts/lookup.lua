-- Where items stand. ARGV from 5: id and digest of each.
-- Returns for each {state, reason, worker}; state '' is unknown, 'done' a tombstone.
local answers = {}
for at = 5, #ARGV, 2 do
  local item = redis.call('HMGET', ITEM .. ARGV[at], 's', 'r', 'w')
  local state = item[1]
  if not state then state = is_done(ARGV[at + 1]) and 'done' or '' end
  answers[#answers + 1] = {state, item[2] or '', item[3] or ''}
end
return answers
