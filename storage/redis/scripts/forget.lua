-- Takes an object whose value was evicted off the index, and notes in the log
-- that it is gone. Replies 1 if it did.
-- KEYS: meta, index, log, object  ARGV: format, key, revision
if redis.call('EXISTS', KEYS[4]) == 1 then return {0} end
if redis.call('ZREM', KEYS[2], ARGV[2] .. '\0' .. ARGV[3]) == 0 then return {0} end
local time = redis.call('TIME')
local new = string.format('%.0f', math.max(tonumber(meta[2]) + 1, time[1] * 1000000 + time[2]))
redis.call('XADD', KEYS[3], new .. '-0', 'k', ARGV[2], 'p', ARGV[3], 'd', '1')
redis.call('HSET', KEYS[1], 'revision', new)
return {1}
