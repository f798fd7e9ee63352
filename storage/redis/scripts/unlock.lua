-- Gives locks back. Replies {1} if the caller had them all.
-- KEYS: locks  ARGV: token
local all = 1
for _, key in ipairs(KEYS) do
	if redis.call('GET', key) == ARGV[1] then redis.call('DEL', key) else all = 0 end
end
return {all}
