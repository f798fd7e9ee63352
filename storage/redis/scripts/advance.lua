-- Raises the revision to at least the one given. base is the newest such revision, which
-- is all that older versions know, and bases are some of the newest.
-- KEYS: meta  ARGV: format, revision, how many to keep
if tonumber(ARGV[2]) > tonumber(meta[2]) then
  local kept, list = {ARGV[2]}, (meta[6] or meta[4]) .. ','
  for base in string.gmatch(list, '%d+') do
    if #kept < tonumber(ARGV[3]) then kept[#kept + 1] = base end
  end
  redis.call('HSET', KEYS[1], 'revision', ARGV[2], 'base', ARGV[2], 'bases', table.concat(kept, ','))
end
return {1}
