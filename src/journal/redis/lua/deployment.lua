#!lua flags=allow-oom
-- The record of what never changes in a deployment, written by whoever comes first; and the name of the server, which
-- changes exactly when something may be lost.
--
-- Guarantee: of many that come first at once one writes, and all get the same answer. A full server takes it too, since
-- whoever comes back to one must find its record. The name stays while the same process serves (run id) that was nobody's
-- replica since: being promoted changes the replication id and keeps the old one as the second, while a first replica or a
-- backlog that is dropped changes it and clears the second. A record that is not there was lost with everything else.
--
-- KEYS  1 deployment
-- ARGV  1 format, 2 shards, 3 durability, 4 a random name
-- Returns {format, shards, durability, server} as stored; one that was made before there were levels has redis, and the
--         server is empty for a user who may not ask who it is
local info = redis.pcall('INFO', 'server', 'replication')
local run = not info.err and string.match(info, 'run_id:(%x+)')
local id = not info.err and string.match(info, 'master_replid:(%x+)')
local found = redis.call('HMGET', KEYS[1], 'format', 'shards', 'durability', 'server', 'run', 'replid')
local name = found[4]
if not found[1] then
  if redis.call('EXISTS', KEYS[1]) == 1 then return redis.error_reply('LASTHIT ' .. KEYS[1] .. ' is damaged: it has no format') end
  found[1], found[2], found[3], name = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
  redis.call('HSET', KEYS[1], 'format', ARGV[1], 'shards', ARGV[2], 'durability', ARGV[3])
elseif run and id and not name then
  -- As it was told before names were kept.
  name = string.sub(run, 1, 16) .. string.sub(id, 1, 16)
elseif found[5] ~= run or (found[6] ~= id and not string.find(info, 'master_replid2:0+%s')) then
  name = ARGV[4]
end
if not run or not id then
  name = ''
elseif name ~= found[4] then
  redis.call('HSET', KEYS[1], 'server', name, 'run', run, 'replid', id)
end
return {found[1], found[2], found[3] or 'redis', name}
