#!lua flags=allow-oom
-- The record of what never changes in a deployment; written by whoever comes first.
--
-- Guarantee: of many that come first at once one writes, and all get the same answer. A full server takes it too, since
-- whoever comes back to one must find its record.
--
-- KEYS  1 deployment
-- ARGV  1 format, 2 shards, 3 durability
-- Returns {format, shards, durability} as stored; one that was made before there were levels has redis
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'format', ARGV[1], 'shards', ARGV[2], 'durability', ARGV[3])
end
local found = redis.call('HMGET', KEYS[1], 'format', 'shards', 'durability')
return {found[1], found[2], found[3] or 'redis'}
