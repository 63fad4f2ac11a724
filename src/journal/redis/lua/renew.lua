#!lua
-- Begins a new era in every room of a shard, its state as it is, when the last commit is below the one that was seen.
--
-- Guarantee: one atomic step, once for each server. It counts as a commit, of nobody's.
--
-- KEYS  1 shard, 2 rooms
-- ARGV  1 server, 2 by how much the count of eras jumps, 3 commit that was seen, 4 what the rooms' state keys begin with
-- Returns the count of rooms
local shard = redis.call('HMGET', KEYS[1], 'commit', 'renewed')
if tonumber(ARGV[3]) <= tonumber(shard[1] or '0') or shard[2] == ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'renewed', ARGV[1], 'commit_epoch', '0')
redis.call('HINCRBY', KEYS[1], 'commit', 1)
redis.call('HINCRBY', KEYS[1], 'eras', ARGV[2])
local rooms = redis.call('SMEMBERS', KEYS[2])
for _, name in ipairs(rooms) do
  redis.call('HSET', ARGV[4] .. name, 'era', redis.call('HINCRBY', KEYS[1], 'eras', 1))
end
return #rooms
