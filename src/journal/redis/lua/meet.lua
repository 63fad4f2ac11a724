#!lua flags=allow-oom
-- Tells the name under which a node of a cluster has a shard. It gets a new one when data may have been lost, and when another node
-- has it (rule N1).
--
-- Guarantee: one of many callers gives a new name, and all get the same. A full node accepts it, too. The name stays as long as the
-- same process (run id) serves, was nobody's replica in between (see deployment.lua), and has the same configuration epoch: that rises
-- when a node is elected, and when it takes a slot over. The fields move with the slot, so a node that has the slot again compares with
-- the one that had it last; if that one's successor lost them, with its own of before, from a lower epoch.
--
-- KEYS  1 shard
-- ARGV  1 a random name
-- Returns the name
-- Errors: LASTHIT for a damaged record of the shard; what the node says where the user may not ask it
local shard = redis.pcall('HMGET', KEYS[1], 'name', 'run', 'replid', 'cfg')
if shard.err then return redis.error_reply('LASTHIT ' .. KEYS[1] .. ' is damaged: it is no hash') end
local info, cluster = redis.call('INFO', 'server', 'replication'), redis.call('CLUSTER', 'INFO')
local run, id = string.match(info, 'run_id:(%x+)'), string.match(info, 'master_replid:(%x+)')
local cfg = string.match(cluster, 'cluster_my_epoch:(%d+)')
local same = shard[2] == run and shard[4] == cfg and (shard[3] == id or string.find(info, 'master_replid2:0+%s'))
local name = shard[1]
if not (name and same) then name = ARGV[1] end
if not (same and shard[1] and shard[3] == id) then
  redis.call('HSET', KEYS[1], 'name', name, 'run', run, 'replid', id, 'cfg', cfg)
end
return name
