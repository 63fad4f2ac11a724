#!lua
-- Makes a gateway's incarnation known to a shard.
--
-- Guarantee: idempotent; what is stored stays as it is, so a fenced one stays fenced.
--
-- KEYS  1 gateways
-- ARGV  1 incarnation
-- Returns its record, number|watermark|fenced
redis.call('HSETNX', KEYS[1], ARGV[1], '0|000000000000000000000000|0')
return redis.call('HGET', KEYS[1], ARGV[1])
