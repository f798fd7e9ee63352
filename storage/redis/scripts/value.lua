-- The value under a key is a hash with a field for each section, each chunk of
-- a section ("<section>~<digest>", where the section lists its chunks) and each group of
-- terms, "<revision>:<data>" with the revision that wrote it, and the field '@':
-- "<revision> <name>@<revision>,…", the revision of the value and its parts. Replaced
-- parts are in the hash of the key's history, by "<revision>/<name>", and the '@' of a
-- replaced value there by its revision. Format 1 has "<revision>:<data>" as a string
-- under the object's key, moved to the version's key when it is replaced.

-- parse takes the field '@' apart.
local function parse(at)
  local revision, list = string.match(at, '^(%d+) ?(.*)$')
  local parts = {}
  for name, written in string.gmatch(list, '([^@,]+)@(%d+)') do parts[#parts + 1] = {name, written} end
  return revision, parts
end

local function manifest(revision, parts)
  local list = {}
  for i, p in ipairs(parts) do list[i] = p[1] .. '@' .. p[2] end
  return revision .. ' ' .. table.concat(list, ',')
end

-- owner returns the section that a chunk belongs to, of another part its name.
local function owner(name) return string.match(name, '^[^~]*') end

-- wanted reports whether the caller wants a part: names is a set, or nil for all, and body
-- the revision that it must not be older than, or nil.
local function wanted(part, names, terms, body)
  local name = part[1]
  if string.sub(name, 1, 1) == '#' then return terms end
  if body and tonumber(part[2]) < body and owner(name) == name then return false end
  return not names or names[owner(name)]
end

-- wants reads the list of names that the caller wants ('*' for all) from an argument. Behind
-- '!,' it is of sections that are not older than the body.
local function wants(list)
  if list == '*' then return nil end
  local names = {}
  for name in string.gmatch(list, '[^,]+') do names[name] = true end
  return names
end

-- bodyof returns the revision of the body, if the caller wants nothing that is older.
local function bodyof(parts, names)
  if not names or not names['!'] then return nil end
  for _, p in ipairs(parts) do
    if p[1] == 'body' then return tonumber(p[2]) end
  end
  return 0
end

-- current returns the value under a key: {revision, name, data, …}, false if there is
-- none.
local function current(value, object, names, terms)
  local at = redis.call('HGET', value, '@')
  if not at then
    local old = object and redis.call('GET', object)
    if not old then return false end
    return {string.match(old, '^%d+'), 'body', old}
  end
  local revision, parts = parse(at)
  local result, body = {revision}, bodyof(parts, names)
  for _, p in ipairs(parts) do
    if wanted(p, names, terms, body) then
      result[#result + 1] = p[1]
      result[#result + 1] = redis.call('HGET', value, p[1])
    end
  end
  return result
end

-- past returns the value that a key had at a revision.
local function past(revision, value, history, object, version, names, terms)
  local at = redis.call('HGET', value, '@')
  if (at and string.match(at, '^%d+')) ~= revision then
    local before = redis.call('HGET', history, revision)
    if not before then -- format 1
      local old = redis.call('GET', object)
      if not old or string.match(old, '^%d+') ~= revision then old = redis.call('GET', version) end
      if not old then return false end
      return {revision, 'body', old}
    end
    at = before
  end
  local _, parts = parse(at)
  local result, body = {revision}, bodyof(parts, names)
  for _, p in ipairs(parts) do
    if wanted(p, names, terms, body) then
      local data = redis.call('HGET', value, p[1])
      if not data or string.match(data, '^%d+') ~= p[2] then data = redis.call('HGET', history, p[2] .. '/' .. p[1]) end
      if not data then return false end
      result[#result + 1] = p[1]
      result[#result + 1] = data
    end
  end
  return result
end

-- size returns the size of a stored section, uncompressed.
local function size(data) return tonumber(string.match(data, '^%d+:(%d+):') or 0) end
