-- One page of the index. Replies with the revision, the members, and how many
-- there are in the whole range (-1 if that is not wanted).
-- KEYS: meta, index, log
-- ARGV: format, range start, range end, limit, count?, revision to read at (0: now)
if ARGV[6] ~= '0' then
  if tonumber(ARGV[6]) > tonumber(meta[2]) then return redis.error_reply('TALLYFUTURE revision is newer than the store') end
  if not known(KEYS[3], ARGV[6]) then return redis.error_reply('TALLYCOMPACTED revision is not in the log') end
end
local count = -1
if ARGV[5] == '1' then count = redis.call('ZLEXCOUNT', KEYS[2], ARGV[2], ARGV[3]) end
return {meta[2], redis.call('ZRANGEBYLEX', KEYS[2], ARGV[2], ARGV[3], 'LIMIT', 0, ARGV[4]), count}
