#!lua flags=no-writes
-- Reads one page of a room: its snapshot, then the verdicts after it, then the entries after its cursor.
--
-- Guarantee: a page is one consistent view, and it is bounded, however large the room is. A snapshot is stored in parts, or in
-- one string that is read in pieces.
--
-- KEYS  1 room, 2 out, 3 state, 4 snapshot, 5 parts, 6 shard
-- ARGV  1 where the page begins: 0 in the snapshot, 1 in the verdicts, 2 in the entries; 2 after which piece (a count), seq or
--       position; 3 most bytes; 4 most pieces, batches and entries together
-- Returns {} for a room that does not exist, or
--         {era, seq, cursor, deaths, attempts, seq of the snapshot | nil, cursor of the snapshot | nil, trim points,
--          seed | nil,
--          {piece of the snapshot | nil, ...}, {batch, ...}, {ID, entry, ...},
--          where the next page begins (3: this is the last page), after what, the program's state | nil (first page only)}
-- Errors: LASTHIT for a damaged record of the shard, DAMAGED for one of the room
local state = redis.call('HMGET', KEYS[3], 'era', 'seq', 'cursor', 'snapshot_seq', 'snapshot_cursor', 'snapshot_parts',
  'deaths_at', 'deaths', 'attempts_at', 'attempts', 'trims', 'seed')
if not state[1] then return {} end
local function count(text) return #text < 16 and string.find(text, '^%d+$') and tonumber(text) end
local shift = redis.pcall('HGET', KEYS[6], 'shift') or '0'
if shift.err then return redis.error_reply('LASTHIT ' .. KEYS[6] .. ' is damaged: it is no hash') end
local era = count(state[1])
if not era or state[4] and not count(state[4]) then
  return redis.error_reply('DAMAGED ' .. KEYS[3] .. ' has an era or a snapshot that is no number')
end
local begins, behind = tonumber(ARGV[1]), ARGV[2]
local size, bytes, pieces = tonumber(ARGV[3]), tonumber(ARGV[3]), tonumber(ARGV[4])

local function spend(length)
  bytes = bytes - length
  pieces = pieces - 1
end

local function full()
  return bytes <= 0 or pieces <= 0
end

-- Reads on in a stream until its tail, or until the page is full. It reads only a few at a time, because the next may be large.
local function take(stream, value)
  local largest, few = size / 4, 1
  repeat
    few = math.min(few * 2, 8)
    local count = math.max(1, math.min(few, pieces, math.floor(bytes / largest)))
    largest = 64
    local entries = redis.call('XRANGE', stream, '(' .. behind, '+', 'COUNT', count)
    for i = 1, #entries do
      local payload = entries[i][2][2]
      behind = entries[i][1]
      value(behind, payload)
      spend(#payload)
      if full() then return end
      if #payload > largest then largest = #payload end
    end
  until #entries < count
end

local snapshot, batches, entries = {}, {}, {}
local program = begins == 0 and behind == '0' and redis.call('HGET', KEYS[3], 'program')
if begins == 0 and state[4] then
  local name, total = string.match(state[6] or '', '^(.+)/(%d+)$')
  if not name then total = math.max(1, math.ceil(redis.call('STRLEN', KEYS[4]) / size)) end
  local read = tonumber(behind)
  while read < tonumber(total) and not full() do
    local piece
    if name then
      piece = redis.call('HGET', KEYS[5], name .. '/' .. read)
    elseif total == 1 then
      piece = redis.call('GET', KEYS[4])
    else
      piece = redis.call('GETRANGE', KEYS[4], read * size, (read + 1) * size - 1)
    end
    read = read + 1
    snapshot[#snapshot + 1] = piece
    spend(piece and #piece or 0)
    if not piece then break end
  end
  behind = read
  if read >= tonumber(total) then begins, behind = 1, state[4] end
elseif begins == 0 then
  begins, behind = 1, '0'
end
if begins == 1 and not full() then
  behind = behind .. '-0'
  take(KEYS[2], function(_, batch) batches[#batches + 1] = batch end)
  if full() then behind = string.match(behind, '^%d+') else begins, behind = 2, state[5] or '0-0' end
end
if begins == 2 and not full() then
  take(KEYS[1], function(id, entry)
    local n = #entries
    entries[n + 1], entries[n + 2] = id, entry
  end)
  if not full() then begins = 3 end
end
return {
  string.format('%.0f', era + tonumber(shift)), state[2], state[3], state[7] == state[2] and state[8] or '0', state[9] == state[2] and state[10] or '0',
  state[4], state[5], state[11] or '', state[12], snapshot, batches, entries, begins, behind,
  program,
}
