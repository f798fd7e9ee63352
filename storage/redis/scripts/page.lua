-- One page of the index, of all entries or of those that carry a term. Replies with the
-- revision, the end of the commit that the revision to read at is in, the members of the
-- index, how many there are in the whole range (-1 if that is not wanted), how many
-- places of the range were looked at, and the key of the last.
-- KEYS: meta, index, log, terms, indexes
-- ARGV: format, range start, range end, limit, count?, revision to read at (0: now), term
--       or '', start and end of the range of terms
if not whole(KEYS[2], meta[7]) then return evicted() end
local at = ARGV[6]
if at ~= '0' then
  if tonumber(at) > tonumber(meta[2]) then return redis.error_reply('TALLYFUTURE revision is newer than the store') end
  local entry = known(KEYS[3], at)
  if not entry then return redis.error_reply('TALLYCOMPACTED revision is not in the log') end
  if entry ~= true then at = ends(entry) end
end
if ARGV[7] == '' then
  local count = -1
  if ARGV[5] == '1' then count = redis.call('ZLEXCOUNT', KEYS[2], ARGV[2], ARGV[3]) end
  local members = redis.call('ZRANGEBYLEX', KEYS[2], ARGV[2], ARGV[3], 'LIMIT', 0, ARGV[4])
  return {meta[2], at, members, count, #members, string.match(members[#members] or '', '^%Z*')}
end
if not whole(KEYS[4], meta[8]) then return evicted() end
local states = redis.call('HVALS', KEYS[5])
local complete = #states > 0
for _, state in ipairs(states) do
  local s = cjson.decode(state)
  if not s.complete or ARGV[6] ~= '0' and tonumber(ARGV[6]) < (s.since or 0) then complete = false end
end
if not complete then return redis.error_reply('TALLYNOINDEX it is not complete') end
local members, last = {}, ''
local found = redis.call('ZRANGEBYLEX', KEYS[4], ARGV[8], ARGV[9], 'LIMIT', 0, ARGV[4])
for _, member in ipairs(found) do
  last = string.sub(member, 17)
  -- There is no entry of an object that was evicted.
  members[#members + 1] = redis.call('ZRANGEBYLEX', KEYS[2], '[' .. last .. '\0', '(' .. last .. '\0\255', 'LIMIT', 0, 1)[1]
end
return {meta[2], at, members, -1, #found, last}
