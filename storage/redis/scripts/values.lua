-- The values that some keys had at some revisions, false for one that is gone. Ends with
-- the value that makes the bytes, so that it may reply fewer than it was asked for.
-- KEYS: meta; of each value value, history, object, version
-- ARGV: format, names of sections, terms?, bytes; of each value its revision
local names, terms, left, result = wants(ARGV[2]), ARGV[3] == '1', tonumber(ARGV[4]), {}
for i = 2, #KEYS, 4 do
  local value = past(ARGV[5 + (i - 2) / 4], KEYS[i], KEYS[i + 1], KEYS[i + 2], KEYS[i + 3], names, terms)
  result[#result + 1] = value
  if value then
    for n = 3, #value, 2 do
      local stored = value[n] or ''
      left = left - math.max(size(stored), #stored)
    end
  end
  if left <= 0 then break end
end
return result
