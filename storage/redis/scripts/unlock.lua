-- Gives a lock back. Replies {1} if the caller had it.
-- KEYS: lock  ARGV: token
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {0} end
redis.call('DEL', KEYS[1])
return {1}
