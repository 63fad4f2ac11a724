#!lua
-- Tells whether the server takes steps, and whether it is still the same. The script has no flags, so a server that is full,
-- read-only or unable to save refuses it.
--
-- Guarantee: it writes nothing.
--
-- KEYS  1 deployment, or, in a cluster, shard
-- ARGV  1 name of the server, or empty, 2 the field that has it
-- Returns 0 it is the same, 1 it is another one
if ARGV[1] == '' or redis.call('HGET', KEYS[1], ARGV[2]) == ARGV[1] then return 0 end
return 1
