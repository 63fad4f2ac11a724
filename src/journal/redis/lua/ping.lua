#!lua
-- Whether steps are taken, and whether the server is still the one that it was: without flags, a server that is full,
-- read-only or cannot save refuses even this.
--
-- Guarantee: it writes nothing.
--
-- KEYS  1 deployment
-- ARGV  1 the server's name, or empty
-- Returns 0 it is, 1 it is another one
if ARGV[1] == '' or redis.call('HGET', KEYS[1], 'server') == ARGV[1] then return 0 end
return 1
