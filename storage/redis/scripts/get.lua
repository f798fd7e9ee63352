-- The values under some keys. Replies the revision of the store, and of each key
-- {revision, name, data, …}, the revision alone if the caller has that value, or the
-- key's entry of the index ('' if there is none) if there is no value.
-- KEYS: meta, index; of each key value, object
-- ARGV: format, names of sections, terms?; of each key the revision that the caller has,
--       start and end of its range in the index
local names, terms, result = wants(ARGV[2]), ARGV[3] == '1', {meta[2]}
for i = 3, #KEYS, 2 do
  local arg = 4 + 3 * (i - 3) / 2
  local at = redis.call('HGET', KEYS[i], '@')
  if at and string.match(at, '^%d+') == ARGV[arg] then
    result[#result + 1] = {ARGV[arg]}
  else
    result[#result + 1] = current(KEYS[i], KEYS[i + 1], names, terms)
      or redis.call('ZRANGEBYLEX', KEYS[2], ARGV[arg + 1], ARGV[arg + 2], 'LIMIT', 0, 1)[1] or ''
  end
end
return result
