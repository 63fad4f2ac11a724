#!lua flags=no-writes
-- Reads a shard as its new owner needs it.
--
-- Guarantee: one consistent view. With heads, it also reads the states of all rooms. KEYS cannot list these, because the rooms
-- are known only inside the script; they share the hash tag. For a room with a damaged state, era, seq and top are nil.
--
-- KEYS  1 shard, 2 gateways, 3 active, 4 rooms, 5 due
-- ARGV  1 prefix of the rooms' state keys, or empty for no heads; 2 server
-- Returns {append, commit, epoch in doubt | nil, {incarnation, record, ...}, {active room, ...}, {room, era, seq, top, ...},
--         {room, ms, ...} by their ms | nil}; the last is empty for no heads, and nil for a damaged list of due rooms
local counts = redis.call('HMGET', KEYS[1], 'append', 'commit', 'server', 'doubt', 'shift')
local function count(text) return #text < 16 and string.find(text, '^%d+$') and tonumber(text) end
local shift = tonumber(counts[5] or '0')
local heads = {}
if ARGV[1] ~= '' then
  for _, name in ipairs(redis.call('SMEMBERS', KEYS[4])) do
    local state = redis.pcall('HMGET', ARGV[1] .. name, 'era', 'seq', 'top')
    if state.err and not string.find(state.err, '^WRONGTYPE') then return state end
    local era, seq, top = count(state[1] or ''), state[2] or '', state[3] or ''
    local n = #heads
    heads[n + 1], heads[n + 2], heads[n + 3], heads[n + 4] = name, false, false, false
    if era and count(seq) and #top == 24 and string.find(top, '^%x+$') then
      heads[n + 2], heads[n + 3], heads[n + 4] = string.format('%.0f', era + shift), seq, top
    end
  end
end
local due = {}
if ARGV[1] ~= '' then
  due = redis.pcall('ZRANGE', KEYS[5], 0, -1, 'WITHSCORES')
  for i = 2, not due.err and #due or 0, 2 do
    local ms = tonumber(due[i])
    due[i] = ms >= 0 and ms < 1e15 and string.format('%.0f', ms) or '0'
  end
end
return {
  counts[1] or '0', counts[2] or '0', counts[3] == ARGV[2] and counts[4], redis.call('HGETALL', KEYS[2]), redis.call('SMEMBERS', KEYS[3]), heads,
  not due.err and due,
}
