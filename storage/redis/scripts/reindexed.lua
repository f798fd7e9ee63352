-- Ends the repair of the indexes: the index of keys is as large as it is now, and one of
-- terms that was evicted is filled anew. Replies with the objects that are missing, and
-- whether the terms were.
-- KEYS: meta, index, terms, indexes  ARGV: format
local missing = tonumber(meta[7] or '0') - redis.call('ZCARD', KEYS[2])
local terms = whole(KEYS[3], meta[8]) and 0 or 1
if terms == 1 then redis.call('DEL', KEYS[3], KEYS[4]) end
redis.call('HSET', KEYS[1], 'objects', redis.call('ZCARD', KEYS[2]), 'postings', redis.call('ZCARD', KEYS[3]))
return {missing, terms}
