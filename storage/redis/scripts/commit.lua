-- One commit: check all conditions, write, index, add to the log, trim.
-- KEYS: meta, index, log, terms, outcome, holds; of each mutation with a key: value,
--       history, object; of each entry to trim: its history; locks to give back
-- ARGV: format, number of mutations, clock ('' for the server's), bounds of the history,
--       milliseconds to keep the outcome, number of entries to trim, token of the locks;
--       each mutation; each entry to trim
-- A mutation is: put, delete or check, key, expected revision (-1 for any), number of
--       sections, of each its name, whether it stays, data; number of groups, of each its
--       name, operation, terms. Or: empty, start and end of the range in the index, term
--       or '', start and end of the range of terms.
-- Replies {1, revisions, the entries to trim next, whether the locks were the caller's}, {1,
-- revisions, nothing} to a retry, or {0, revision, mutation in conflict, entry in its way}.
local function conflict(i, what) return {0, meta[2], i - 1, what} end

if not whole(KEYS[2], meta[7]) or not whole(KEYS[4], meta[8]) then return evicted() end

-- Conditions first.
local mutations, changes = {}, 0
for i = 1, tonumber(ARGV[2]) do
  local m = {op = take()}
  if m.op == 'empty' then
    local from, to, term, termfrom, termto = take(), take(), take(), take(), take()
    local found
    if term == '' then
      found = redis.call('ZRANGEBYLEX', KEYS[2], from, to, 'LIMIT', 0, 1)[1]
    else
      local member = redis.call('ZRANGEBYLEX', KEYS[4], termfrom, termto, 'LIMIT', 0, 1)[1]
      if member then
        local name = string.sub(member, 17)
        found = redis.call('ZRANGEBYLEX', KEYS[2], '[' .. name .. '\0', '(' .. name .. '\0\255', 'LIMIT', 0, 1)[1]
      end
    end
    if found then return conflict(i, found) end
  else
    m.key, m.expect = take(), take()
    m.value, m.history, m.object = KEYS[key], KEYS[key + 1], KEYS[key + 2]
    key = key + 3
    m.sections, m.groups = {}, {}
    for n = 1, tonumber(take()) do m.sections[n] = {take(), take(), take()} end
    for n = 1, tonumber(take()) do m.groups[n] = {take(), take(), take()} end
    m.at = redis.call('HGET', m.value, '@')
    if m.at then
      m.revision, m.parts = parse(m.at)
    else
      m.old = redis.call('GET', m.object) -- format 1
      if m.old then
        m.revision = string.match(m.old, '^%d+')
        m.parts = {{'body', m.revision}}
        m.at = manifest(m.revision, m.parts)
      end
    end
    if m.expect ~= '-1' and ((m.revision or '0') ~= m.expect or (m.op == 'delete' and not m.revision)) then
      return conflict(i, current(m.value, m.object))
    end
    if m.op == 'put' or (m.op == 'delete' and m.revision) then changes = changes + 1 end
  end
  mutations[i] = m
end

local function split(data, set)
  for n = string.find(data, ':', 1, true) + 1, #data, 16 do set[string.sub(data, n, n + 15)] = true end
  return set
end
local function join(set)
  local list = {}
  for term in pairs(set) do list[#list + 1] = term end
  table.sort(list)
  return table.concat(list)
end
-- union returns the terms of all groups of a value.
local function union(m, parts)
  local set = {}
  for _, p in ipairs(parts) do
    if string.sub(p[1], 1, 1) == '#' then split(redis.call('HGET', m.value, p[1]), set) end
  end
  return set
end

local before = meta[2]
local new = math.max(tonumber(before) + 1, now)
local last = digits(new + changes - 1)
local bytes, rawbytes, revisions = 0, 0, {}
for i, m in ipairs(mutations) do
  revisions[i] = '0'
  if m.op == 'put' or (m.op == 'delete' and m.revision) then
    local revision = digits(new)
    if m.old then -- stored anew, as of this format
      redis.call('HSET', m.value, 'body', m.old)
      redis.call('DEL', m.object)
    end
    local termsbefore = union(m, m.parts or {})
    local moved, movedbytes = {}, 0
    local function move(name, data)
      local written = string.match(data, '^%d+')
      redis.call('HSET', m.history, written .. '/' .. name, data)
      moved[#moved + 1] = written .. '/' .. name
      movedbytes = movedbytes + #written + 1 + #name + #data
      bytes = bytes - #data
      if string.sub(name, 1, 1) ~= '#' then rawbytes = rawbytes - size(data) end
    end
    local function set(name, data)
      local old = redis.call('HGET', m.value, name)
      if old and data and string.sub(old, string.find(old, ':', 1, true) + 1) == data then return end
      if old then move(name, old) end
      if data then
        local stored = revision .. ':' .. data
        redis.call('HSET', m.value, name, stored)
        bytes = bytes + #stored
        if string.sub(name, 1, 1) ~= '#' then rawbytes = rawbytes + size(stored) end
      elseif old then
        redis.call('HDEL', m.value, name)
      end
    end
    local after = {}
    if m.op == 'delete' then
      for _, p in ipairs(m.parts) do move(p[1], redis.call('HGET', m.value, p[1])) end
      redis.call('DEL', m.value)
    else
      local given, written = {}, {}
      for _, s in ipairs(m.sections) do
        given[s[1]], written[owner(s[1])] = true, true
        set(s[1], s[2] == '1' and s[3])
      end
      for _, p in ipairs(m.parts or {}) do
        if not given[p[1]] and written[owner(p[1])] then set(p[1], false) end
      end
      for _, g in ipairs(m.groups) do
        local name, terms = '#' .. g[1], {}
        if g[2] ~= 'replace' then split(redis.call('HGET', m.value, name) or ':', terms) end
        for term in pairs(split(':' .. g[3], {})) do terms[term] = g[2] ~= 'remove' or nil end
        local data = join(terms)
        set(name, data ~= '' and data)
      end
      local names = redis.call('HKEYS', m.value)
      table.sort(names)
      for _, name in ipairs(names) do
        if name ~= '@' then after[#after + 1] = {name, string.match(redis.call('HGET', m.value, name), '^%d+')} end
      end
      redis.call('HSET', m.value, '@', manifest(revision, after))
    end
    if m.revision then redis.call('HSET', m.history, m.revision, m.at) end

    local added, removed, termsafter = {}, {}, union(m, after)
    for term in pairs(termsafter) do
      if not termsbefore[term] then
        added[#added + 1] = term
        redis.call('ZADD', KEYS[4], 0, term .. m.key)
      end
    end
    for term in pairs(termsbefore) do
      if not termsafter[term] then
        removed[#removed + 1] = term
        redis.call('ZREM', KEYS[4], term .. m.key)
      end
    end

    -- The whole range of the key: an entry may be left of an object that was evicted.
    redis.call('ZREMRANGEBYLEX', KEYS[2], '[' .. m.key .. '\0', '(' .. m.key .. '\0\255')
    if m.op == 'put' then redis.call('ZADD', KEYS[2], 0, m.key .. '\0' .. revision) end
    local entry = {'k', m.key, 'p', m.revision or '0', 'b', before, 'w', table.concat(moved, ',')}
    local function note(name, value)
      entry[#entry + 1] = name
      entry[#entry + 1] = value
    end
    if revision ~= last then note('c', last) end
    if #added > 0 then note('a', table.concat(added)) end
    if #removed > 0 then note('x', table.concat(removed)) end
    if m.op == 'delete' then note('d', '1') end
    local weight = weigh(entry, movedbytes + #(m.at or ''))
    note('z', weight)
    logdelta = logdelta + weight
    redis.call('XADD', KEYS[3], revision .. '-0', unpack(entry))
    revisions[i], before = revision, revision
    new = new + 1
  end
end
if changes > 0 then redis.call('HSET', KEYS[1], 'objects', redis.call('ZCARD', KEYS[2]), 'postings', redis.call('ZCARD', KEYS[4])) end
