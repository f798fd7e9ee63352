-- Takes an object whose value was evicted off the index, and notes in the log
-- that it is gone. Replies 1 if it did.
-- KEYS: meta, index, log, value, object  ARGV: format, key, revision
if not whole(KEYS[2], meta[7]) then return evicted() end
if redis.call('EXISTS', KEYS[4], KEYS[5]) > 0 then return {0} end
if redis.call('ZREM', KEYS[2], ARGV[2] .. '\0' .. ARGV[3]) == 0 then return {0} end
local new = digits(math.max(tonumber(meta[2]) + 1, clock('')))
redis.call('XADD', KEYS[3], new .. '-0', 'k', ARGV[2], 'p', ARGV[3], 'b', meta[2], 'w', '', 'd', '1')
redis.call('HSET', KEYS[1], 'revision', new)
if meta[7] then redis.call('HSET', KEYS[1], 'objects', redis.call('ZCARD', KEYS[2])) end
return {1}
