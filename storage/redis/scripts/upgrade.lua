-- Makes a store of format 1 one of format 2: values of format 1 are read as they are,
-- and stored anew when they are written or indexed. Replies with the format before.
-- KEYS: meta  ARGV: format
if meta[1] == '1' then redis.call('HSET', KEYS[1], 'format', '2') end
return {meta[1]}
