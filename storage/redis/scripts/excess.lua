-- Drops entries of the log that exceed the bounds of the history. Replies with the ones to
-- drop next, none if there are none left.
-- KEYS: meta, log, holds; of each entry to trim: its history
-- ARGV: format, clock ('' for the server's), bounds, how many to drop next; each entry
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if not newest then return {} end
local exceeds = bounded(ARGV[3], clock(ARGV[2]), KEYS[3], ends(newest))
trimexceeding(KEYS[2], 5, #ARGV - 1, 4, exceeds)
return exceeding(KEYS[2], tonumber(ARGV[4]), exceeds)
