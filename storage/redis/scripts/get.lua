-- KEYS: meta, object, index
-- ARGV: format, revision whose value the caller has, start and end of the key's
--       range in the index
local head = string.match(redis.call('GETRANGE', KEYS[2], 0, 20), '^%d+')
if not head then -- there is none, or it was evicted
  local member = redis.call('ZRANGEBYLEX', KEYS[3], ARGV[3], ARGV[4], 'LIMIT', 0, 1)[1]
  return {meta[2], false, member}
end
if head == ARGV[2] then return {meta[2], head} end
return {meta[2], head, redis.call('GET', KEYS[2])}
