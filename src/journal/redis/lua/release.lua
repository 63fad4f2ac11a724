#!lua flags=allow-oom
-- Releases a shard. The epoch stays.
--
-- Guarantee: only for the owner of the lease; otherwise nothing happens.
--
-- KEYS  1 shard
-- ARGV  1 epoch, 2 owner
-- Returns 0
-- Errors: LASTHIT for a damaged record of the shard
local shard = redis.pcall('HMGET', KEYS[1], 'epoch', 'owner')
if shard.err then return redis.error_reply('LASTHIT ' .. KEYS[1] .. ' is damaged: it is no hash') end
if shard[1] == ARGV[1] and shard[2] == ARGV[2] then redis.call('HDEL', KEYS[1], 'owner') end
return 0
