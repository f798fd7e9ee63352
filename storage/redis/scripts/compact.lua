-- Drops entries from the old end of the log.
-- KEYS: meta, log, and where the values are that the entries kept
-- ARGV: format, revision to which to compact, and the entries' revisions
if tonumber(ARGV[2]) > tonumber(meta[2]) then return redis.error_reply('TALLYFUTURE revision is newer than the store') end
for i = 3, #ARGV - 1 do
  local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
  if not first or first[1] ~= ARGV[i] .. '-0' then return {0} end -- someone else was faster
  redis.call('XDEL', KEYS[2], first[1])
  redis.call('UNLINK', KEYS[i])
  redis.call('HSET', KEYS[1], 'compacted', ARGV[i])
end
local first = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
if first and tonumber(string.match(first[1], '^%d+')) <= tonumber(ARGV[2]) then return {0} end
if tonumber(ARGV[2]) > tonumber(meta[3]) then redis.call('HSET', KEYS[1], 'compacted', ARGV[2]) end
return {1}
