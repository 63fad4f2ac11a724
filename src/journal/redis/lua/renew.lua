#!lua
-- Begins a new era in every room of a shard, its state as it is.
--
-- Guarantee: only for the lease's owner, and once for each server.
--
-- KEYS  1 shard, 2 rooms
-- ARGV  1 epoch, 2 owner, 3 server, 4 by how much the count of eras jumps, 5 what the rooms' state keys begin with
-- Returns {0, count of rooms} done, {1} the lease is lost
local shard = redis.call('HMGET', KEYS[1], 'epoch', 'owner', 'renewed')
if shard[1] ~= ARGV[1] or shard[2] ~= ARGV[2] then return {1} end
if shard[3] == ARGV[3] then return {0, 0} end
redis.call('HSET', KEYS[1], 'renewed', ARGV[3])
redis.call('HINCRBY', KEYS[1], 'eras', ARGV[4])
local rooms = redis.call('SMEMBERS', KEYS[2])
for _, name in ipairs(rooms) do
  redis.call('HSET', ARGV[5] .. name, 'era', redis.call('HINCRBY', KEYS[1], 'eras', 1))
end
return {0, #rooms}
