#!lua flags=no-writes
-- Reads one page of a shard's rooms: first those with timers, then the heads of all.
--
-- Guarantee: a page is one consistent view, of a later moment than the pages before it and the survey. That is enough: a room that
-- was stored, or had a timer, when the scan began, and still has, is on some page, perhaps twice. The owner hears of every newer one
-- by a bell, and changes the timers itself. Heads only rise. KEYS cannot list the rooms' states, because the rooms are known only
-- inside the script; they share the hash tag. For a room with a damaged state, era, seq and top are nil.
--
-- KEYS  1 shard, 2 rooms, 3 due
-- ARGV  1 where the page begins: due or heads, 2 cursor (0 at first), 3 about how many rooms, 4 prefix of the rooms' state keys
-- Returns {where the next page begins | nil, its cursor, {room, ms, ...} | nil, {room, era, seq, top, ...}}; the third is nil for a
--         damaged list of due rooms
-- Errors: what the server says where a room's state is out of reach
local function count(text) return #text < 16 and string.find(text, '^%d+$') and tonumber(text) end
local begins, cursor, left = ARGV[1], ARGV[2], tonumber(ARGV[3])
local due, heads = {}, {}
if begins == 'due' then
  local page = redis.pcall('ZSCAN', KEYS[3], cursor, 'COUNT', left)
  if page.err and not string.find(page.err, '^WRONGTYPE') then return page end
  due, cursor = not page.err and page[2], page[1] or '0'
  for i = 2, due and #due or 0, 2 do
    local ms = tonumber(due[i])
    due[i] = ms >= 0 and ms < 1e15 and string.format('%.0f', ms) or '0'
  end
  left = left - (due and #due / 2 or 0)
  if cursor == '0' then begins = 'heads' end
end
if begins == 'heads' and left > 0 then
  local shift = tonumber(redis.call('HGET', KEYS[1], 'shift') or '0')
  local page = redis.call('SSCAN', KEYS[2], cursor, 'COUNT', left)
  for _, name in ipairs(page[2]) do
    local state = redis.pcall('HMGET', ARGV[4] .. name, 'era', 'seq', 'top')
    if state.err and not string.find(state.err, '^WRONGTYPE') then return state end
    local era, seq, top = count(state[1] or ''), state[2] or '', state[3] or ''
    local n = #heads
    heads[n + 1], heads[n + 2], heads[n + 3], heads[n + 4] = name, false, false, false
    if era and count(seq) and #top == 24 and string.find(top, '^%x+$') then
      heads[n + 2], heads[n + 3], heads[n + 4] = string.format('%.0f', era + shift), seq, top
    end
  end
  cursor = page[1]
  if cursor == '0' then begins = false end
end
return {begins, cursor, due, heads}
