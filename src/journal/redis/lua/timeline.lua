#!lua
-- Tells the number of a host's timeline (rule S1).
--
-- Guarantee: a name always gets the same number; a new name gets a higher one than all before.
--
-- KEYS  1 timelines
-- ARGV  1 name of the host's clock
-- Returns {the number, the last one that was given}
local field = 'host:' .. ARGV[1]
local known = redis.call('HGET', KEYS[1], field)
if known then return {known, redis.call('HGET', KEYS[1], 'last') or known} end
local number = redis.call('HINCRBY', KEYS[1], 'last', 1)
redis.call('HSET', KEYS[1], field, number)
return {number, number}
