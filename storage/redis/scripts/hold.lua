-- Says from which revision on a process needs the history, for some time; '' for none.
-- KEYS: meta, holds  ARGV: format, process, revision, milliseconds
local now = clock('')
for _, process in ipairs(redis.call('HKEYS', KEYS[2])) do -- of processes that have ended
  local till = string.match(redis.call('HGET', KEYS[2], process), '%d+$')
  if tonumber(till) < now then redis.call('HDEL', KEYS[2], process) end
end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[2], ARGV[2])
else
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[3] .. ' ' .. digits(now + 1000 * tonumber(ARGV[4])))
end
return {1}
