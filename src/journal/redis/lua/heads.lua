#!lua flags=no-writes
-- The heads of some rooms.
--
-- Guarantee: one moment's view.
--
-- KEYS  the rooms' states
-- Returns {era, seq, top, ...}; era 0 for a room that is not there, or whose state is damaged
local reply = {}
for i = 1, #KEYS do
  local state = redis.pcall('HMGET', KEYS[i], 'era', 'seq', 'top')
  reply[3 * i - 2] = state[1] or '0'
  reply[3 * i - 1] = state[2] or '0'
  reply[3 * i] = state[3] or '000000000000000000000000'
end
return reply
