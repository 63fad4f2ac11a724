#!lua flags=allow-oom
-- Reads what is fixed for a deployment, and the name of the server. The first caller writes it. The server gets a new name
-- exactly when data may have been lost.
--
-- Guarantee: one of many first callers writes, and all get the same answer. A full server accepts it, too: whoever returns to
-- such a server must find the record. The name stays as long as the same process (run id) serves and was nobody's replica in
-- between. A promotion changes the replication id and keeps the old one as the second. A first replica, or a backlog that is
-- dropped, changes it and clears the second. If the record is missing, it was lost with all other data.
--
-- KEYS  1 deployment
-- ARGV  1 format, 2 shards, 3 durability, 4 a random name, 5 the oldest format that is taken over: from then on the deployment has
--       this one, 6 tags, empty for none
-- Returns {format, shards, durability, server, tags} as stored. A record from before there were levels has the durability redis. The
--         server is empty for a Redis user who may not call INFO; tags are empty where the record has none
-- Errors: LASTHIT for a damaged record
local info = redis.pcall('INFO', 'server', 'replication')
local run = not info.err and string.match(info, 'run_id:(%x+)')
local id = not info.err and string.match(info, 'master_replid:(%x+)')
local found = redis.call('HMGET', KEYS[1], 'format', 'shards', 'durability', 'server', 'run', 'replid', 'tags')
local name = found[4]
if not found[1] then
  if redis.call('EXISTS', KEYS[1]) == 1 then return redis.error_reply('LASTHIT ' .. KEYS[1] .. ' is damaged: it has no format') end
  found[1], found[2], found[3], name = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
  redis.call('HSET', KEYS[1], 'format', ARGV[1], 'shards', ARGV[2], 'durability', ARGV[3])
  if ARGV[6] ~= '' then redis.call('HSET', KEYS[1], 'tags', ARGV[6]) end
  found[7] = ARGV[6]
elseif run and id and not name then
  -- How the name was made before it was stored.
  name = string.sub(run, 1, 16) .. string.sub(id, 1, 16)
elseif found[5] ~= run or (found[6] ~= id and not string.find(info, 'master_replid2:0+%s')) then
  name = ARGV[4]
end
local format = tonumber(found[1])
if format and format >= tonumber(ARGV[5]) and format < tonumber(ARGV[1]) then
  found[1] = ARGV[1]
  redis.call('HSET', KEYS[1], 'format', ARGV[1])
end
if not run or not id then
  name = ''
elseif name ~= found[4] then
  redis.call('HSET', KEYS[1], 'server', name, 'run', run, 'replid', id)
end
return {found[1], found[2], found[3] or 'redis', name, found[7] or ''}
