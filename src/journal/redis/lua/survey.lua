#!lua flags=no-writes
-- Reads a shard as its owner needs it. Its rooms follow in pages (rooms.lua).
--
-- Guarantee: one consistent view: every room with an entry that is not resolved, and that the count of appends covers, is active.
--
-- KEYS  1 shard, 2 gateways, 3 active
-- ARGV  1 server
-- Returns {append, commit, epoch in doubt | nil, {incarnation, record, ...}, {active room, ...}}
local counts = redis.call('HMGET', KEYS[1], 'append', 'commit', 'server', 'doubt')
return {
  counts[1] or '0', counts[2] or '0', counts[3] == ARGV[1] and counts[4], redis.call('HGETALL', KEYS[2]), redis.call('SMEMBERS', KEYS[3]),
}
