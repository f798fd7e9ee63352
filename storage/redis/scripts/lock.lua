-- Takes locks, all or none, or keeps those that are the caller's: the answer to an earlier try
-- may have got lost. Replies {1} if the caller has them.
-- KEYS: locks  ARGV: token, milliseconds
for _, key in ipairs(KEYS) do
	local holder = redis.call('GET', key)
	if holder and holder ~= ARGV[1] then return {0} end
end
for _, key in ipairs(KEYS) do redis.call('SET', key, ARGV[1], 'PX', ARGV[2]) end
return {1}
