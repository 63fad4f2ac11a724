#!lua
-- The record of what never changes in a deployment; written by whoever comes first.
--
-- Guarantee: of many that come first at once one writes, and all get the same answer.
--
-- KEYS  1 deployment
-- ARGV  1 format, 2 shards
-- Returns {format, shards} as stored
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'format', ARGV[1], 'shards', ARGV[2])
end
return redis.call('HMGET', KEYS[1], 'format', 'shards')
