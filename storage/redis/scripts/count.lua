-- How many entries carry each of some terms.
-- KEYS: meta, terms  ARGV: format; of each term the start and end of its range
if meta[1] == '1' then return redis.error_reply('TALLYNOINDEX there is none in format 1') end
if not whole(KEYS[2], meta[8]) then return evicted() end
local result = {}
for i = 2, #ARGV - 1, 2 do result[#result + 1] = redis.call('ZLEXCOUNT', KEYS[2], ARGV[i], ARGV[i + 1]) end
return result
