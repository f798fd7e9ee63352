-- Takes locks, all or none, or keeps those that are the caller's: the answer to an earlier try
-- may have got lost. To renew them takes none that is free: a commit may have given them back.
-- Replies {1} if the caller has them.
-- KEYS: locks  ARGV: token, milliseconds, renew?
for _, key in ipairs(KEYS) do
	local holder = redis.call('GET', key)
	if holder ~= ARGV[1] and (holder or ARGV[3] == '1') then return {0} end
end
for _, key in ipairs(KEYS) do redis.call('SET', key, ARGV[1], 'PX', ARGV[2]) end
return {1}
