-- Raises the revision to at least the one given.
-- KEYS: meta  ARGV: format, revision
if tonumber(ARGV[2]) > tonumber(meta[2]) then redis.call('HSET', KEYS[1], 'revision', ARGV[2], 'base', ARGV[2]) end
return {1}
