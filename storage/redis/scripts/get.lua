-- KEYS: meta, object  ARGV: format, revision whose value the caller has
local head = string.match(redis.call('GETRANGE', KEYS[2], 0, 20), '^%d+')
if not head then return {meta[2]} end
if head == ARGV[2] then return {meta[2], head} end
return {meta[2], head, redis.call('GET', KEYS[2])}
