-- Drops entries from the old end of the log. Replies 1 when there are none left to drop.
-- KEYS: meta, log, and of each entry its history
-- ARGV: format, revision to which to compact, and the entries
if tonumber(ARGV[2]) > tonumber(meta[2]) then return redis.error_reply('TALLYFUTURE revision is newer than the store') end
local revision = tonumber(ARGV[2])
local function expired(entry) return tonumber(ends(entry)) <= revision end
trim(KEYS[2], 3, #ARGV - 1, 3, expired)
account()
local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
if first and expired(first) then return {0} end
local inside = redis.call('XRANGE', KEYS[2], ARGV[2] .. '-0', ARGV[2] .. '-0')[1]
if revision > tonumber(meta[3]) and not (inside and ends(inside) ~= ARGV[2]) then redis.call('HSET', KEYS[1], 'compacted', ARGV[2]) end
return {1}
