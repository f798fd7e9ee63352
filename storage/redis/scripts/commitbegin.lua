-- The beginning of a commit, of both formats: a retry, the clock, and the arguments.
if meta[1] ~= ARGV[1] then return redis.error_reply('TALLYOTHERFORMAT ' .. meta[1]) end
local done = redis.call('GET', KEYS[5])
if done then -- a retry of a commit whose answer got lost; WAIT is about this write
  redis.call('SET', KEYS[5], done, 'PX', ARGV[5])
  return {1, done, {}}
end

local arg, key = 8, 7
local function take()
  arg = arg + 1
  return ARGV[arg - 1]
end
local now = clock(ARGV[3])
