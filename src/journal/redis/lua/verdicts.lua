#!lua flags=no-writes
-- A page of a room's verdicts.
--
-- Guarantee: one moment's view.
--
-- KEYS  1 out, 2 state, 3 shard
-- ARGV  1 the seq after which to begin, 2 batches at most
-- Returns {last commit, era, seq, {{ID, {'v', batch}}, ...}}; era 0 for a room that is not there
local state = redis.call('HMGET', KEYS[2], 'era', 'seq')
local commit = redis.call('HGET', KEYS[3], 'commit') or '0'
if not state[1] then return {commit, '0', '0', {}} end
return {commit, state[1], state[2], redis.call('XRANGE', KEYS[1], '(' .. ARGV[1] .. '-0', '+', 'COUNT', ARGV[2])}
