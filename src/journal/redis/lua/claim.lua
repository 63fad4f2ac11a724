#!lua
-- Takes a shard over.
--
-- Guarantee: only from the owner that the caller saw, so that of many claims one wins; the epoch rises every time.
--
-- KEYS  1 shard
-- ARGV  1 epoch seen, 2 owner seen (both empty: nobody), 3 worker
-- Returns {0, epoch} done, {1} somebody was faster
local shard = redis.call('HMGET', KEYS[1], 'epoch', 'owner')
if shard[2] then
  if shard[1] ~= ARGV[1] or shard[2] ~= ARGV[2] then return {1} end
elseif ARGV[2] ~= '' then
  return {1}
end
local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('HSET', KEYS[1], 'owner', ARGV[3])
return {0, epoch}
