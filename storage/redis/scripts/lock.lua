-- Takes a lock, or keeps it if it is the caller's: the answer to an earlier try may have
-- got lost. Replies {1} if the caller has it.
-- KEYS: lock  ARGV: token, milliseconds
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return {0} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {1}
