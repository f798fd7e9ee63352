-- Enters objects in the index. While it is not whole there are no commits. Replies with
-- the number of entries.
-- KEYS: meta, index; of each object its value, its object of format 1  ARGV: format, keys
local entered = 0
for i = 3, #KEYS, 2 do
  local key = ARGV[2 + (i - 3) / 2]
  local revision = string.match(redis.call('HGET', KEYS[i], '@') or redis.call('GET', KEYS[i + 1]) or '', '^%d+')
  if revision and not whole(KEYS[2], meta[7]) then
    redis.call('ZREMRANGEBYLEX', KEYS[2], '[' .. key .. '\0', '(' .. key .. '\0\255')
    entered = entered + redis.call('ZADD', KEYS[2], 0, key .. '\0' .. revision)
  end
end
return {entered}
