-- The changes after a revision. Replies with the store's revision, the newest revisions
-- that no commit made, comma-separated, and entries.
-- KEYS: meta, log  ARGV: format, revision, limit, whether the change of the revision itself is one of them
if not known(KEYS[2], ARGV[2]) then return redis.error_reply('TALLYCOMPACTED revision is not in the log') end
return {meta[2], meta[6] or meta[4], redis.call('XRANGE', KEYS[2], (ARGV[4] == '1' and '' or '(') .. ARGV[2] .. '-0', '+', 'COUNT', ARGV[3])}
