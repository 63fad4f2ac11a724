#!lua flags=no-writes
-- Everything needed to continue a room: its snapshot, the verdicts and the entries after it.
--
-- Guarantee: one moment's view.
--
-- KEYS  1 room, 2 out, 3 state, 4 snapshot, 5 shard
-- Returns {} for a room that is not there, or
--         {era, seq, cursor, deaths, attempts, snapshot seq | nil, snapshot cursor | nil, snapshot | nil,
--          trim points, {{ID, {'v', batch}}, ...}, {{ID, {'e', entry}}, ...}}
local state = redis.call('HMGET', KEYS[3], 'era', 'seq', 'cursor', 'snapshot_seq', 'snapshot_cursor', 'deaths_at', 'deaths',
  'attempts_at', 'attempts', 'trims')
if not state[1] then return {} end
local era, shift = tonumber(state[1]), redis.pcall('HGET', KEYS[5], 'shift') or '0'
if shift.err then return redis.error_reply('LASTHIT ' .. KEYS[5] .. ' is damaged: it is no hash') end
return {
  era and string.format('%.0f', era + shift) or state[1], state[2], state[3], state[6] == state[2] and state[7] or '0', state[8] == state[2] and state[9] or '0',
  state[4], state[5], state[4] and redis.call('GET', KEYS[4]), state[10] or '',
  redis.call('XRANGE', KEYS[2], '(' .. (state[4] or '0') .. '-0', '+'),
  redis.call('XRANGE', KEYS[1], '(' .. (state[5] or '0-0'), '+'),
}
