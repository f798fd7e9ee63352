-- The state of an index of terms, '' if it was never begun.
-- KEYS: meta, indexes  ARGV: format, name
return {redis.call('HGET', KEYS[2], ARGV[2]) or ''}
