#!lua flags=no-writes
-- A page of a room's verdicts.
--
-- Guarantee: one moment's view.
--
-- KEYS  1 out, 2 state, 3 shard
-- ARGV  1 the seq after which to begin, 2 batches at most
-- Returns {last commit, era, seq, {{ID, {'v', batch}}, ...}}; era 0 for a room that is not there
local state = redis.call('HMGET', KEYS[2], 'era', 'seq')
local shard = redis.pcall('HMGET', KEYS[3], 'commit', 'shift')
if shard.err then return redis.error_reply('LASTHIT ' .. KEYS[3] .. ' is damaged: it is no hash') end
local commit = shard[1] or '0'
if not state[1] then return {commit, '0', '0', {}} end
local era = tonumber(state[1])
if not era or not tonumber(state[2]) then return redis.error_reply('DAMAGED ' .. KEYS[2] .. ' has no era or seq') end
return {commit, string.format('%.0f', era + tonumber(shard[2] or '0')), state[2], redis.call('XRANGE', KEYS[1], '(' .. ARGV[1] .. '-0', '+', 'COUNT', ARGV[2])}
