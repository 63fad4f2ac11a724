#!lua flags=no-writes
-- A shard as its new owner finds it.
--
-- Guarantee: one moment's view. With heads it also reads the states of the rooms in KEYS 4, whose keys cannot be known
-- before; they share the hash tag. What is damaged is told as it is: of a room's state what there is of it, else nil.
--
-- KEYS  1 shard, 2 gateways, 3 active, 4 rooms
-- ARGV  1 what the rooms' state keys begin with, or empty for no heads, 2 server
-- Returns {append, commit, epoch in doubt or nil, {incarnation, record, ...}, {active room, ...}, {room, era, seq, top, ...}}
local counts = redis.call('HMGET', KEYS[1], 'append', 'commit', 'server', 'doubt', 'shift')
local function count(text) return #text < 16 and string.find(text, '^%d+$') and tonumber(text) end
local shift = tonumber(counts[5] or '0')
local heads = {}
if ARGV[1] ~= '' then
  for _, name in ipairs(redis.call('SMEMBERS', KEYS[4])) do
    local state = redis.pcall('HMGET', ARGV[1] .. name, 'era', 'seq', 'top')
    local era, seq, top = count(state[1] or ''), state[2] or '', state[3] or ''
    local n = #heads
    heads[n + 1], heads[n + 2], heads[n + 3], heads[n + 4] = name, false, false, false
    if era and count(seq) and #top == 24 and string.find(top, '^%x+$') then
      heads[n + 2], heads[n + 3], heads[n + 4] = string.format('%.0f', era + shift), seq, top
    end
  end
end
return {
  counts[1] or '0', counts[2] or '0', counts[3] == ARGV[2] and counts[4], redis.call('HGETALL', KEYS[2]), redis.call('SMEMBERS', KEYS[3]), heads,
}
