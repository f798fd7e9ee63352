-- The values that some keys had at some revisions, false for one that is gone.
-- KEYS: meta; of each value value, history, object, version
-- ARGV: format, names of sections, terms?; of each its revision
local names, terms, result = wants(ARGV[2]), ARGV[3] == '1', {}
for i = 2, #KEYS, 4 do
  result[#result + 1] = past(ARGV[4 + (i - 2) / 4], KEYS[i], KEYS[i + 1], KEYS[i + 2], KEYS[i + 3], names, terms)
end
return result
