-- Sets the terms of entries that were written without them, stores values of format 1
-- anew, and moves on the state of an index. Replies 1 if the state was the expected one.
-- KEYS: meta, indexes, terms; of each entry value, object
-- ARGV: format, index, expected state ('' for none), next state; of each entry key,
--       revision, group, terms, number of parts of a section, of each its name and data
if meta[1] == '1' then return redis.error_reply('TALLYNOINDEX there is none in format 1') end
if (redis.call('HGET', KEYS[2], ARGV[2]) or '') ~= ARGV[3] then return {0} end
if not whole(KEYS[3], meta[8]) then return evicted() end
local bytes, rawbytes, arg = 0, 0, 5
local function each(data, from, fn)
  for n = from, #data, 16 do fn(string.sub(data, n, n + 15)) end
end
for i = 4, #KEYS, 2 do
  local key, revision, group, terms = ARGV[arg], ARGV[arg + 1], '#' .. ARGV[arg + 2], ARGV[arg + 3]
  local first, number = arg + 5, tonumber(ARGV[arg + 4])
  arg = first + 2 * number
  local at, old, parts = redis.call('HGET', KEYS[i], '@'), nil, nil
  if at then
    old, parts = parse(at)
  else
    local value = redis.call('GET', KEYS[i + 1])
    old = value and string.match(value, '^%d+')
    if old == revision then
      redis.call('HSET', KEYS[i], 'body', value)
      redis.call('DEL', KEYS[i + 1])
      parts = {{'body', old}}
    end
  end
  if old == revision then
    local others, kept = {}, {}
    for _, p in ipairs(parts) do
      if p[1] ~= group then
        kept[#kept + 1] = p
        if string.sub(p[1], 1, 1) == '#' then
          local data = redis.call('HGET', KEYS[i], p[1])
          each(data, string.find(data, ':', 1, true) + 1, function(t) others[t] = true end)
        end
      end
    end
    local before = redis.call('HGET', KEYS[i], group)
    if before then
      each(before, string.find(before, ':', 1, true) + 1, function(t) if not others[t] then redis.call('ZREM', KEYS[3], t .. key) end end)
      redis.call('HDEL', KEYS[i], group)
      bytes = bytes - #before
    end
    if terms ~= '' then
      redis.call('HSET', KEYS[i], group, old .. ':' .. terms)
      bytes = bytes + #old + 1 + #terms
      kept[#kept + 1] = {group, old}
      each(terms, 1, function(t) redis.call('ZADD', KEYS[3], 0, t .. key) end)
    end
    local has, body = nil, '0'
    for _, p in ipairs(kept) do
      if p[1] == 'body' then body = p[2] end
      if p[1] == ARGV[first] and number > 0 then has = p[2] end
    end
    if number == 1 and has and tonumber(has) >= tonumber(body) then
      local replaced, stored = redis.call('HGET', KEYS[i], ARGV[first]), has .. ':' .. ARGV[first + 1]
      redis.call('HSET', KEYS[i], ARGV[first], stored)
      bytes = bytes + #stored - #replaced
      rawbytes = rawbytes + size(stored) - size(replaced)
    elseif number > 0 and not has then
      for n = first, first + 2 * number - 1, 2 do
        local stored = old .. ':' .. ARGV[n + 1]
        redis.call('HSET', KEYS[i], ARGV[n], stored)
        kept[#kept + 1] = {ARGV[n], old}
        bytes = bytes + #stored
        rawbytes = rawbytes + size(stored)
      end
    end
    table.sort(kept, function(a, b) return a[1] < b[1] end)
    redis.call('HSET', KEYS[i], '@', manifest(old, kept))
  end
end
redis.call('HINCRBY', KEYS[1], 'bytes', bytes)
redis.call('HINCRBY', KEYS[1], 'rawbytes', rawbytes)
redis.call('HSET', KEYS[1], 'postings', redis.call('ZCARD', KEYS[3]))
local next = string.gsub(ARGV[4], '"since":0', '"since":' .. meta[2])
redis.call('HSET', KEYS[2], ARGV[2], next)
return {1}
