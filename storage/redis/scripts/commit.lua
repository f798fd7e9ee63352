-- One commit: compare, write or delete, append to the log, trim.
-- KEYS: meta, index, log, object, where its value goes, outcome, and where the
--       values are that the trimmed entries kept
-- ARGV: format, key, expected revision, value ('' to delete), bytes uncompressed,
--       clock ('' for the server's), log entries, log age (microseconds),
--       milliseconds to keep the outcome, and the revisions to trim
-- Replies {1, revision, entries to trim next} or {0, revision, current value}.
local done = redis.call('GET', KEYS[6])
if done then -- a retry of a commit whose answer got lost; WAIT is about this write
  redis.call('SET', KEYS[6], done, 'PX', ARGV[9])
  return {1, done, {}}
end
local revision, raw = string.match(redis.call('GETRANGE', KEYS[4], 0, 40), '^(%d+):(%d+):')
if (revision or '0') ~= ARGV[3] or (ARGV[4] == '' and not revision) then
  return {0, meta[2], revision and redis.call('GET', KEYS[4])}
end

local now = tonumber(ARGV[6])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local new = string.format('%.0f', math.max(tonumber(meta[2]) + 1, now))
local bytes, rawbytes = -redis.call('STRLEN', KEYS[4]), -(raw or 0)
if revision then redis.call('RENAME', KEYS[4], KEYS[5]) end
-- The whole range of the key: an entry may be left of an object that was evicted.
redis.call('ZREMRANGEBYLEX', KEYS[2], '[' .. ARGV[2] .. '\0', '(' .. ARGV[2] .. '\0\255')
if ARGV[4] ~= '' then
  local value = new .. ':' .. ARGV[4]
  redis.call('SET', KEYS[4], value)
  redis.call('ZADD', KEYS[2], 0, ARGV[2] .. '\0' .. new)
  bytes, rawbytes = bytes + #value, rawbytes + ARGV[5]
  redis.call('XADD', KEYS[3], new .. '-0', 'k', ARGV[2], 'p', revision or '0')
else
  redis.call('XADD', KEYS[3], new .. '-0', 'k', ARGV[2], 'p', revision, 'd', '1')
end
redis.call('HSET', KEYS[1], 'revision', new)
redis.call('HINCRBY', KEYS[1], 'bytes', bytes)
redis.call('HINCRBY', KEYS[1], 'rawbytes', rawbytes)
redis.call('SET', KEYS[6], new, 'PX', ARGV[9])

-- An entry leaves the log when the log is too long or the entry too old, and
-- takes the value it replaced with it. Which ones those are, the last commit's
-- reply has said, so that their keys are declared.
local oldest = now - tonumber(ARGV[8])
local function expired(id, length)
  return id ~= new and (length > tonumber(ARGV[7]) or tonumber(id) < oldest)
end
for i = 10, #ARGV - 1 do
  local first = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)[1]
  if first[1] ~= ARGV[i] .. '-0' or not expired(ARGV[i], redis.call('XLEN', KEYS[3])) then break end
  redis.call('XDEL', KEYS[3], first[1])
  redis.call('UNLINK', KEYS[i - 3])
  redis.call('HSET', KEYS[1], 'compacted', ARGV[i])
end
local next, length = {}, redis.call('XLEN', KEYS[3])
for _, entry in ipairs(redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 4)) do
  local id = string.match(entry[1], '^%d+')
  if not expired(id, length) then break end
  next[#next + 1] = id
  next[#next + 1] = entry[2][4]
  length = length - 1
end
return {1, new, next}
