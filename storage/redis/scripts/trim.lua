-- Drops whole commits from the old end of the log. An entry takes the parts that it
-- replaced with it. Which entries those are, the caller has read before, so that their
-- keys are declared; another caller may have dropped some of them since.

-- The length of the log, its size in bytes, and how much that has changed.
local length, logbytes, logdelta = nil, tonumber(meta[5] or '0'), 0

-- weigh returns the size of an entry to be added, with the bytes that it moved. What Redis
-- needs for it besides is some 100 bytes.
local function weigh(fields, moved)
  local size = 100 + moved
  for _, text in ipairs(fields) do size = size + #text end
  return size
end

-- at is the place of the first argument: of each entry its revision, that of the last of
-- its commit, and the fields of the history to delete, comma-separated ('' if the key is
-- that of a version of format 1). key is the place of the first key, one of each entry.
-- expired says of the first entry of a commit whether it goes.
local function trim(log, at, last, key, expired)
  local going = false
  local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  length = length or redis.call('XLEN', log)
  for i = at, last, 3 do
    if not first then return end
    if tonumber(ARGV[i]) >= tonumber(id(first)) then
      if first[1] ~= ARGV[i] .. '-0' then return end
      if not going then
        if not expired(first) then return end
        going = true
      end
      redis.call('XDEL', log, first[1])
      length, logdelta = length - 1, logdelta - tonumber(field(first, 'z') or '0')
      if ARGV[i + 2] == '' then
        redis.call('UNLINK', KEYS[key])
      else
        for name in string.gmatch(ARGV[i + 2], '[^,]+') do redis.call('HDEL', KEYS[key], name) end
      end
      if ARGV[i + 1] == ARGV[i] then
        redis.call('HSET', KEYS[1], 'compacted', ARGV[i])
        meta[3] = ARGV[i]
        going = false
      end
      first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
    end
    key = key + 1
  end
end

-- account adds what was added to the log and dropped from it to its stored size.
local function account()
  if logdelta ~= 0 then redis.call('HINCRBY', KEYS[1], 'logbytes', digits(logdelta)) end
end
