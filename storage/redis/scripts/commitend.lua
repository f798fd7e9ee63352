-- The end of a commit, of both formats.
local outcome = before .. ' ' .. table.concat(revisions, ',')
if changes > 0 then
  redis.call('HSET', KEYS[1], 'revision', before)
  redis.call('HINCRBY', KEYS[1], 'bytes', digits(bytes))
  redis.call('HINCRBY', KEYS[1], 'rawbytes', digits(rawbytes))
end
redis.call('SET', KEYS[5], outcome, 'PX', ARGV[5])

local exceeds = bounded(ARGV[4], now, KEYS[6], before)
trimexceeding(KEYS[3], arg, arg + 3 * tonumber(ARGV[6]) - 1, key, exceeds)
local kept = 1
for i = key + tonumber(ARGV[6]), #KEYS do
  if redis.call('GET', KEYS[i]) == ARGV[7] then redis.call('DEL', KEYS[i]) else kept = 0 end
end
return {1, outcome, exceeding(KEYS[3], 4, exceeds), kept}
