-- Drops whole commits from the old end of the log. An entry takes the parts that it
-- replaced with it. Which entries those are, the caller has read before, so that their
-- keys are declared; another caller may have dropped some of them since.
-- at is the place of the first argument: of each entry its revision, that of the last of
-- its commit, and the fields of the history to delete, comma-separated ('' if the key is
-- that of a version of format 1). key is the place of the first key, one of each entry.
-- expired says of the first entry of a commit whether it goes.
local function trim(log, at, last, key, expired)
  local going = false
  local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  for i = at, last, 3 do
    if not first then return end
    if tonumber(ARGV[i]) >= tonumber(id(first)) then
      if first[1] ~= ARGV[i] .. '-0' then return end
      if not going then
        if not expired(first) then return end
        going = true
      end
      redis.call('XDEL', log, first[1])
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
