#!lua flags=no-writes
-- Reads the heads of some rooms.
--
-- Guarantee: one consistent view.
--
-- KEYS  1 shard, then the state of each room
-- Returns {era, seq, top, ...}; era 0 means that the room does not exist, or that its state is damaged
-- Errors: LASTHIT for a damaged record of the shard
local function count(text) return #text < 16 and string.find(text, '^%d+$') and tonumber(text) end
local shift = redis.pcall('HGET', KEYS[1], 'shift') or '0'
if shift.err then return redis.error_reply('LASTHIT ' .. KEYS[1] .. ' is damaged: it is no hash') end
shift = tonumber(shift)
local reply = {}
for i = 2, #KEYS do
  local state = redis.pcall('HMGET', KEYS[i], 'era', 'seq', 'top')
  local era, seq, top = count(state[1] or ''), state[2] or '', state[3] or ''
  local sound = era and count(seq) and #top == 24 and string.find(top, '^%x+$')
  reply[3 * i - 5] = sound and string.format('%.0f', era + shift) or '0'
  reply[3 * i - 4] = sound and seq or '0'
  reply[3 * i - 3] = sound and top or '000000000000000000000000'
end
return reply
