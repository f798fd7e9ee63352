-- Creates the store if it is not there. Replies with its format, id, and
-- whether it was created.
-- KEYS: meta, log  ARGV: format, id, clock ('' for the server's)
local meta = redis.call('HMGET', KEYS[1], 'format', 'id')
if meta[1] then return {meta[1], meta[2] or '', 0} end
local now = tonumber(ARGV[3])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
now = math.max(now, 1)
-- A log that outlived the rest (an eviction) may be ahead of the clock.
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
if last[1] then now = math.max(now, tonumber(string.match(last[1][1], '^%d+')) + 1) end
redis.call('HSET', KEYS[1], 'format', ARGV[1], 'id', ARGV[2],
  'revision', string.format('%.0f', now), 'base', string.format('%.0f', now),
  'compacted', string.format('%.0f', now - 1), 'bytes', 0, 'rawbytes', 0)
return {ARGV[1], ARGV[2], 1}
