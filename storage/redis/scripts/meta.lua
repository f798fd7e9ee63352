-- Every script starts with this: it refuses a store of another format, which a
-- newer version may have made while this one runs, one that is gone, and one that
-- is behind what the caller has seen of it: an old master that does not know yet
-- that there is a new one. Of all scripts, the first argument is the format and
-- the last is the newest revision that the caller has seen.
local meta = redis.call('HMGET', KEYS[1], 'format', 'revision', 'compacted', 'base')
if not meta[2] then return redis.error_reply('TALLYEMPTY the store is empty') end
if meta[1] ~= ARGV[1] then return redis.error_reply('TALLYFORMAT ' .. (meta[1] or '')) end
if tonumber(meta[2]) < tonumber(ARGV[#ARGV]) then return redis.error_reply('TALLYSTALE at ' .. meta[2]) end

-- known reports whether revision is one that history can be told from: it has
-- an entry in the log, or is the one that the log starts after, or the newest
-- that no commit made (base).
local function known(log, revision)
  if revision == meta[3] or revision == meta[2] then return true end
  if tonumber(revision) < tonumber(meta[3]) then return false end
  if revision == meta[4] then return true end
  return #redis.call('XRANGE', log, revision .. '-0', revision .. '-0') == 1
end
