-- Writes something, for the caller to wait until all before it is durable.
-- KEYS: meta, outcome  ARGV: format, milliseconds to keep it
redis.call('SET', KEYS[2], '', 'PX', ARGV[2])
return {1}
