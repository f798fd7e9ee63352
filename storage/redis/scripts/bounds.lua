-- The bounds of the history: bytes, least age, entries, age, with ages in microseconds.

-- bounded returns a function that says of the first entry of the oldest commit whether it
-- exceeds the bounds. newest is the last revision of the newest commit, which stays.
local function bounded(bounds, now, holds, newest)
  local maxbytes, minage, maxentries, maxage = string.match(bounds, '(%d+) (%d+) (%d+) (%d+)')
  maxbytes, minage, maxentries, maxage = tonumber(maxbytes), tonumber(minage), tonumber(maxentries), tonumber(maxage)
  local held
  local function hold()
    if held then return held end
    held = math.huge
    for _, h in ipairs(redis.call('HVALS', holds)) do
      local revision, till = string.match(h, '(%d+) (%d+)')
      if tonumber(till) > clock('') then held = math.min(held, tonumber(revision)) end
    end
    return held
  end
  -- length and bytes are those of the log without the entries before this one.
  return function(entry, length, bytes)
    local last = ends(entry)
    if last == newest then return false end
    if bytes > maxbytes then return true end
    local age = now - tonumber(id(entry)) -- below 0 if the clock went back, or after an Advance
    if (age >= 0 and age < minage) or (length <= maxentries and age <= maxage) then return false end
    return tonumber(last) <= hold()
  end
end

-- trimexceeding is trim for entries that exceed the bounds.
local function trimexceeding(log, at, last, key, exceeds)
  trim(log, at, last, key, function(entry) return exceeds(entry, length, logbytes + logdelta) end)
  account()
end

-- exceeding returns the entries of the oldest commits that exceed the bounds, about limit
-- of them.
local function exceeding(log, limit, exceeds)
  local next, left, bytes = {}, length or redis.call('XLEN', log), logbytes + logdelta
  local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  if not first or not exceeds(first, left, bytes) then return next end
  for _, entry in ipairs(redis.call('XRANGE', log, '-', '+', 'COUNT', limit + 64)) do
    local starts = #next == 0 or ends(next[#next]) == id(next[#next])
    if starts and (#next >= limit or not exceeds(entry, left, bytes)) then break end
    next[#next + 1] = entry
    left, bytes = left - 1, bytes - tonumber(field(entry, 'z') or '0')
  end
  return next
end
