-- Every script starts with this: it refuses a store of a format that this version does
-- not know, one that is gone, and one that is behind what the caller has seen of it: an
-- old master that does not know yet that there is a new one. The first key of all
-- scripts is meta, and the last argument is the newest revision that the caller has seen.
local meta = redis.call('HMGET', KEYS[1], 'format', 'revision', 'compacted', 'base', 'logbytes', 'bases', 'objects', 'postings')
if not meta[2] then return redis.error_reply('TALLYEMPTY the store is empty') end
if meta[1] ~= '1' and meta[1] ~= '2' and meta[1] ~= '3' then return redis.error_reply('TALLYFORMAT ' .. (meta[1] or '')) end
if tonumber(meta[2]) < tonumber(ARGV[#ARGV]) then return redis.error_reply('TALLYSTALE at ' .. meta[2]) end

-- whole reports whether a sorted set has the size that was noted of it: a server that
-- evicts keys takes it as a whole, and the next write would begin another.
local function whole(set, size) return not size or tonumber(size) == redis.call('ZCARD', set) end
local function evicted() return redis.error_reply('TALLYEVICTED an index of the store') end

local function digits(n) return string.format('%.0f', n) end

-- field returns a field of an entry of the log.
local function field(entry, name)
  for i = 1, #entry[2], 2 do
    if entry[2][i] == name then return entry[2][i + 1] end
  end
end

-- id returns the revision of an entry of the log, ends that of the last of its commit.
local function id(entry) return string.match(entry[1], '^%d+') end
local function ends(entry) return field(entry, 'c') or id(entry) end

-- known returns a revision's entry of the log, or true if it is one that history can be
-- told from without: the one that the log starts after, the newest, and the newest ones
-- that no commit made (bases).
local function known(log, revision)
  local at = redis.call('XRANGE', log, revision .. '-0', revision .. '-0')[1]
  if revision == meta[3] or revision == meta[2] then return at or true end
  if tonumber(revision) < tonumber(meta[3]) then return false end
  return at or revision == meta[4] or string.find(',' .. (meta[6] or '') .. ',', ',' .. revision .. ',', 1, true) ~= nil
end

-- clock returns the time in microseconds, by the caller or the server.
local function clock(given)
  if tonumber(given) then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end
