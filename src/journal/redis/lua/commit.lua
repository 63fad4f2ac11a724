#!lua
-- Makes a batch of a shard's verdicts final, then publishes the pushes that came with it. At the levels `disk` and
-- `replicated` no pushes come with it: the worker publishes them later.
--
-- Guarantee: one atomic step (rule C2), only for the owner of the lease and only for the stored number + 1 (rule C1). The
-- stored number under the same lease is done already, and nothing is written. All checks come before the first write, except
-- for the types of the set `active` and of the first room's stream: if such a write fails, the earlier ones are undone.
--
-- KEYS  1 shard, 2 active, then per room: out, state; then per room: the keys of its options
-- ARGV  1 epoch, 2 owner, 3 number, 4 count of rooms,
--       then per room: name, era, from, to, cursor, verdicts, options, then the arguments of its options,
--       then per push: channel, message
-- The options of a room, one letter each, with their arguments and keys:
--       s  a snapshot: its bytes; keys: snapshot, parts
--       a  a snapshot that was written ahead: name/count|seq|cursor; keys: snapshot, parts
--       t  a trim: position in the room's stream, ID in its verdict stream; key: room
--       g  the gateways inside the room, in hex, without separators
--       p  the places behind which history may be trimmed
--       d  when the room's next timer is due, in ms, or empty for never; key: due. A damaged list of due rooms stops nothing
--       o  the state of the program outside that decides the room
--       f  failed events: their pattern, how many of it are kept, their count, then each; keys: failed, that of the pattern. If these are
--          damaged, that stops nothing
-- A room's era is the stored era plus the shard's shift.
-- Returns {0}            committed
--         {1}            fenced: another lease, or another number
--         {2, i, ...}    refused: the indexes (from 1) of rooms that have another era or seq, a damaged key, or a snapshot with
--                        a missing part
-- Errors: LASTHIT for a damaged record of the shard
local function damaged(key, why) return redis.error_reply('LASTHIT ' .. key .. ' is damaged: ' .. why) end
local function count(text) return #text < 16 and string.find(text, '^%d+$') and tonumber(text) end

local shard = redis.pcall('HMGET', KEYS[1], 'epoch', 'owner', 'commit', 'commit_epoch', 'shift')
if shard.err then return damaged(KEYS[1], 'it is no hash') end
if shard[1] ~= ARGV[1] or shard[2] ~= ARGV[2] then return {1} end
if shard[3] == ARGV[3] and shard[4] == ARGV[1] then return {0} end
local stored, shift = count(shard[3] or '0'), count(shard[5] or '0')
if not stored or not shift or stored + shift > 1e15 then
  return damaged(KEYS[1], 'commit or shift is no number')
end
if tonumber(ARGV[3]) ~= stored + 1 then return {1} end

-- Whether a part of a snapshot that was written ahead is missing.
local function incomplete(parts, what)
  local name, count = string.match(what, '^(.+)/(%d+)|')
  for i = 0, count - 1 do
    if redis.pcall('HEXISTS', parts, name .. '/' .. i) ~= 1 then return true end
  end
  return false
end

-- Calls `act` with each option of a room and the indexes of its first argument and key. Returns those of the next room.
local function options(letters, arg, key, act)
  local more = {s = {1, 2}, a = {1, 2}, t = {2, 1}, g = {1, 0}, p = {1, 0}, d = {1, 1}, o = {1, 0}, f = {3, 2}}
  for letter in string.gmatch(letters, '.') do
    act(letter, arg, key)
    if letter == 'f' then arg = arg + ARGV[arg + 2] end
    arg, key = arg + more[letter][1], key + more[letter][2]
  end
  return arg, key
end

local function stream(key)
  local type = redis.call('TYPE', key).ok
  return type == 'stream' or type == 'none'
end

local rooms = tonumber(ARGV[4])
local reply, resolved = {2}, {}
local arg, option = 5, 2 * rooms + 3
for i = 1, rooms do
  local out, from = KEYS[2 * i + 1], ARGV[arg + 2]
  local state = redis.pcall('HMGET', KEYS[2 * i + 2], 'era', 'seq', 'last')
  local era, sound = state[1], true
  if era and shift > 0 then era = string.format('%.0f', (tonumber(era) or 0) + shift) end
  -- If there are verdicts after the room's seq, or the key has another type, XADD would fail.
  if i > 1 and from ~= ARGV[arg + 3] and redis.pcall('XREAD', 'STREAMS', out, from .. '-0') then sound = false end
  if ARGV[arg + 4] == state[3] then resolved[#resolved + 1] = ARGV[arg] end
  if era ~= ARGV[arg + 1] or state[2] ~= from then sound = false end
  local letters = ARGV[arg + 6]
  arg = arg + 7
  if letters ~= '' then
    arg, option = options(letters, arg, option, function(letter, at, key)
      if letter == 'a' and incomplete(KEYS[key + 1], ARGV[at]) then sound = false end
      if letter == 't' and not (stream(KEYS[key]) and stream(out)) then sound = false end
    end)
  end
  if not sound then reply[#reply + 1] = i end
end
if #reply > 1 then return reply end
-- `unpack` takes at most some 8,000 values.
for at = 1, #resolved, 1000 do
  local removed = redis.pcall('SREM', KEYS[2], unpack(resolved, at, math.min(at + 999, #resolved)))
  if type(removed) == 'table' then return damaged(KEYS[2], 'it is no set') end
end

arg, option = 5, 2 * rooms + 3
for i = 1, rooms do
  local out, state = KEYS[2 * i + 1], KEYS[2 * i + 2]
  local name, to, cursor, letters = ARGV[arg], ARGV[arg + 3], ARGV[arg + 4], ARGV[arg + 6]
  if to ~= ARGV[arg + 2] then
    local id = (i > 1 and redis.call or redis.pcall)('XADD', out, to .. '-0', 'v', ARGV[arg + 5])
    if id.err then
      for at = 1, #resolved, 1000 do
        redis.call('SADD', KEYS[2], unpack(resolved, at, math.min(at + 999, #resolved)))
      end
      return {2, 1}
    end
  end
  redis.call('HSET', state, 'seq', to, 'cursor', cursor)
  arg = arg + 7
  if letters ~= '' then
    arg, option = options(letters, arg, option, function(letter, at, key)
      if letter == 's' then
        redis.call('SET', KEYS[key], ARGV[at])
        redis.call('HSET', state, 'snapshot_seq', to, 'snapshot_cursor', cursor)
        redis.call('HDEL', state, 'snapshot_parts')
        redis.call('UNLINK', KEYS[key + 1])
      elseif letter == 'a' then
        local parts, seq, taken = string.match(ARGV[at], '^([^|]+)|([^|]+)|([^|]+)$')
        redis.call('HSET', state, 'snapshot_seq', seq, 'snapshot_cursor', taken, 'snapshot_parts', parts)
        local good = string.match(parts, '^[^/]+')
        for _, field in ipairs(redis.call('HKEYS', KEYS[key + 1])) do
          if string.match(field, '^[^/]+') ~= good then redis.call('HDEL', KEYS[key + 1], field) end
        end
        redis.call('UNLINK', KEYS[key])
      elseif letter == 't' then
        -- A step removes at most so many entries; later snapshots trim at the same place again. Redis' default limit is a tenth.
        redis.call('XTRIM', KEYS[key], 'MINID', '~', ARGV[at], 'LIMIT', 100000)
        redis.call('XTRIM', out, 'MINID', '~', ARGV[at + 1], 'LIMIT', 100000)
      elseif letter == 'g' then
        redis.call('HSET', state, 'gateways', ARGV[at])
      elseif letter == 'o' then
        redis.call('HSET', state, 'program', ARGV[at])
      elseif letter == 'p' then
        redis.call('HSET', state, 'trims', ARGV[at])
      elseif letter == 'f' then
        redis.pcall('HSET', KEYS[key], ARGV[at], ARGV[at + 1])
        for i = at + 3, at + 2 + ARGV[at + 2] do
          redis.pcall('XADD', KEYS[key + 1], 'MAXLEN', ARGV[at + 1], '*', 'f', ARGV[i])
        end
      elseif ARGV[at] == '' then
        redis.pcall('ZREM', KEYS[key], name)
      else
        redis.pcall('ZADD', KEYS[key], ARGV[at], name)
      end
    end)
  end
end
redis.call('HSET', KEYS[1], 'commit', ARGV[3], 'commit_epoch', ARGV[1])
for i = arg, #ARGV, 2 do
  redis.call('PUBLISH', ARGV[i], ARGV[i + 1])
end
return {0}
