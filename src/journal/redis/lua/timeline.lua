#!lua
-- The number of a host's timeline (rule S1).
--
-- Guarantee: the same for the same name; a new name's is higher than all before.
--
-- KEYS  1 timelines
-- ARGV  1 host
-- Returns the number
local field = 'host:' .. ARGV[1]
local known = redis.call('HGET', KEYS[1], field)
if known then return known end
local number = redis.call('HINCRBY', KEYS[1], 'last', 1)
redis.call('HSET', KEYS[1], field, number)
return number
