-- One commit in format 1, which processes of an older version read and write too: there
-- are bodies only, and no terms. Arguments, keys and replies are those of commit.lua,
-- but that the second key of a mutation is where a replaced value goes: the caller
-- knows its revision.
local mutations, changes = {}, 0
for i = 1, tonumber(ARGV[2]) do
  local m = {op = take()}
  if m.op == 'empty' then
    local from, to, term = take(), take(), take()
    take()
    take()
    if term ~= '' then return redis.error_reply('TALLYNOINDEX there is none in format 1') end
    local found = redis.call('ZRANGEBYLEX', KEYS[2], from, to, 'LIMIT', 0, 1)[1]
    if found then return {0, meta[2], i - 1, found} end
  else
    m.key, m.expect = take(), take()
    m.version, m.object = KEYS[key + 1], KEYS[key + 2]
    key = key + 3
    for _ = 1, tonumber(take()) do
      local name, stays, data = take(), take(), take()
      if name == 'body' and stays == '1' then m.data = data end
    end
    for _ = 1, tonumber(take()) do
      take()
      take()
      take()
    end
    local head = redis.call('GETRANGE', m.object, 0, 40)
    m.revision, m.raw = string.match(head, '^(%d+):(%d+):')
    if (m.revision or '0') ~= m.expect or (m.op == 'delete' and not m.revision) then
      local old = m.revision and redis.call('GET', m.object)
      return {0, meta[2], i - 1, old and {m.revision, 'body', old}}
    end
    if m.op == 'put' and not m.data then return redis.error_reply('TALLYNOBODY a value of format 1 is a body') end
    if m.op == 'put' or m.op == 'delete' then changes = changes + 1 end
  end
  mutations[i] = m
end

local before = meta[2]
local new = math.max(tonumber(before) + 1, now)
local last = digits(new + changes - 1)
local bytes, rawbytes, revisions = 0, 0, {}
for i, m in ipairs(mutations) do
  revisions[i] = '0'
  if m.op == 'put' or m.op == 'delete' then
    local revision = digits(new)
    local replaced = redis.call('STRLEN', m.object)
    bytes, rawbytes = bytes - replaced, rawbytes - (m.raw or 0)
    if m.revision then redis.call('RENAME', m.object, m.version) end
    redis.call('ZREMRANGEBYLEX', KEYS[2], '[' .. m.key .. '\0', '(' .. m.key .. '\0\255')
    local entry = {'k', m.key, 'p', m.revision or '0', 'b', before}
    if revision ~= last then
      entry[7], entry[8] = 'c', last
    end
    if m.op == 'put' then
      local value = revision .. ':' .. m.data
      redis.call('SET', m.object, value)
      redis.call('ZADD', KEYS[2], 0, m.key .. '\0' .. revision)
      bytes, rawbytes = bytes + #value, rawbytes + size(value)
    else
      entry[#entry + 1] = 'd'
      entry[#entry + 1] = '1'
    end
    local weight = weigh(entry, replaced)
    entry[#entry + 1] = 'z'
    entry[#entry + 1] = weight
    logdelta = logdelta + weight
    redis.call('XADD', KEYS[3], revision .. '-0', unpack(entry))
    revisions[i], before = revision, revision
    new = new + 1
  end
end
