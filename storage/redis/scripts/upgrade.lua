-- Gives a store of an older format the newest one: values of the older are read as they
-- are, and stored anew when they are written or, those of format 1, indexed. Replies with
-- the format before.
-- KEYS: meta  ARGV: format
if tonumber(meta[1]) < tonumber(ARGV[1]) then redis.call('HSET', KEYS[1], 'format', ARGV[1]) end
return {meta[1]}
