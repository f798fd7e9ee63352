-- The values under some keys, once locks are taken, all or none. Replies the revision of the store,
-- and of each key {revision, name, data, …}, the revision alone if the caller has that value, or the
-- key's entry of the index ('' if there is none) if there is no value. Replies the revision
-- alone if another holds a lock.
-- KEYS: meta, index; locks; of each key value, object
-- ARGV: format, names of sections, terms?, number of locks, token, milliseconds; of each key the
--       revision that the caller has, start and end of its range in the index
local locks = tonumber(ARGV[4])
for i = 3, 2 + locks do
  local holder = redis.call('GET', KEYS[i])
  if holder and holder ~= ARGV[5] then return {meta[2]} end
end
for i = 3, 2 + locks do redis.call('SET', KEYS[i], ARGV[5], 'PX', ARGV[6]) end

local names, terms, result = wants(ARGV[2]), ARGV[3] == '1', {meta[2]}
for i = 3 + locks, #KEYS, 2 do
  local arg = 7 + 3 * (i - 3 - locks) / 2
  local at = redis.call('HGET', KEYS[i], '@')
  if at and string.match(at, '^%d+') == ARGV[arg] then
    result[#result + 1] = {ARGV[arg]}
  else
    result[#result + 1] = current(KEYS[i], KEYS[i + 1], names, terms)
      or redis.call('ZRANGEBYLEX', KEYS[2], ARGV[arg + 1], ARGV[arg + 2], 'LIMIT', 0, 1)[1] or ''
  end
end
return result
