#!lua flags=allow-oom
-- Lets a shard go. The epoch stays.
--
-- Guarantee: only the lease's own; of any other lease nothing is touched.
--
-- KEYS  1 shard
-- ARGV  1 epoch, 2 owner
-- Returns 0
local shard = redis.call('HMGET', KEYS[1], 'epoch', 'owner')
if shard[1] == ARGV[1] and shard[2] == ARGV[2] then redis.call('HDEL', KEYS[1], 'owner') end
return 0
