-- The end of a commit, of both formats.
local outcome = before .. ' ' .. table.concat(revisions, ',')
if changes > 0 then
  redis.call('HSET', KEYS[1], 'revision', before)
  redis.call('HINCRBY', KEYS[1], 'bytes', digits(bytes))
  redis.call('HINCRBY', KEYS[1], 'rawbytes', digits(rawbytes))
end
redis.call('SET', KEYS[5], outcome, 'PX', ARGV[6])

local oldest = now - tonumber(ARGV[5])
local function expired(entry, length)
  return ends(entry) ~= before and ((length or redis.call('XLEN', KEYS[3])) > tonumber(ARGV[4]) or tonumber(id(entry)) < oldest)
end
trim(KEYS[3], arg, arg + 3 * tonumber(ARGV[7]) - 1, key, expired)

-- The entries to trim next: those of some commits.
local length, next = redis.call('XLEN', KEYS[3]), {}
local first = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)[1]
if first and expired(first, length) then
  local list = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 72)
  for _, entry in ipairs(list) do
    local starts = #next == 0 or ends(next[#next]) == id(next[#next])
    if starts and (#next >= 4 or not expired(entry, length - #next)) then break end
    next[#next + 1] = entry
  end
end
return {1, outcome, next}
