-- For scripts that run as ones that only read, which a replica answers, too.
if not string.find(redis.call('INFO', 'replication'), 'role:master', 1, true) then
  return redis.error_reply('READONLY this is a replica')
end
