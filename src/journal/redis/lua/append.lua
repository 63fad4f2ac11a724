#!lua
-- Appends one gateway's flush to its rooms' streams, and rings the shard's bell with it.
--
-- Guarantee: one atomic step; exactly stored number + 1 with the stored watermark as `previous` is written, a number
-- at or below the stored one is answered with the current heads and writes nothing. All checks come before the first
-- write. The other gateways in these rooms whose watermark is below `idle below` are sent the poke; the bell says who.
-- Moments are compared as text of 24 digits: numbers here are exact to 2^53 only. A room's era is the stored one and the
-- shard's shift.
--
-- KEYS  1 shard, 2 gateways, 3 active, 4 rooms, then per room: room, state
-- ARGV  1 incarnation, 2 number, 3 previous, 4 watermark, 5 bell channel, 6 what push channels begin with, 7 poke,
--       8 idle below, then per room: name, top, entry
-- Returns {0, era, seq, top, ...}   stored: each room's head
--         {1, number, watermark}    gap: what is stored
--         {2}                       not registered, or fenced
--         {3, i, ...}               refused: the rooms, counted from 1, one of whose keys is damaged
-- Refusals: LASTHIT for a damaged record of the shard
local function damaged(key, why) return redis.error_reply('LASTHIT ' .. key .. ' is damaged: ' .. why) end

local record = redis.pcall('HGET', KEYS[2], ARGV[1])
if not record then return {2} end
if record.err then return damaged(KEYS[2], 'it is no hash') end
local stored, watermark, fenced, server = string.match(record, '^(%d+)|(%x+)|([01])|(%x+)$')
if not stored then return damaged(KEYS[2], 'gateway record ' .. record) end
if fenced == '1' then return {2} end

local number = tonumber(ARGV[2])
local repeated = number <= tonumber(stored)
if not repeated and (number ~= tonumber(stored) + 1 or ARGV[3] ~= watermark) then
  return {1, stored, watermark}
end
local shard = redis.pcall('HMGET', KEYS[1], 'append', 'eras', 'shift')
if shard.err then return damaged(KEYS[1], 'it is no hash') end
local append, eras, shift = tonumber(shard[1] or 0), tonumber(shard[2] or 0), tonumber(shard[3] or 0)
if not append or not eras or not shift or append < 0 or eras < 0 or shift < 0 or append + eras + shift > 1e15 then
  return damaged(KEYS[1], 'append, eras or shift is no number')
end
local before = eras

local rooms = (#KEYS - 4) / 2
local reply = {0}
local heads = {}
local refused = {3}
local tops, begun = {}, {}
local is_new = false
for i = 1, rooms do
  local state = redis.pcall('HMGET', KEYS[4 + 2 * i], 'era', 'seq', 'top', 'gateways')
  local type = redis.call('TYPE', KEYS[3 + 2 * i]).ok
  local era, seq, top = state[1], state[2], state[3]
  local sound
  if era then
    local appended = ARGV[3 * i + 7]
    sound = seq and top and era ~= '' and seq ~= '' and #era < 16 and #seq < 16 and #top == 24 and string.find(era .. seq, '^%d+$')
    if not sound or top <= appended then
      tops[i] = appended
    else
      tops[i], sound = top, string.find(top, '^%x+$')
    end
  else
    sound = not state.err and not seq and not top
  end
  heads[i] = sound and state or {}
  begun[i] = type == 'none'
  is_new = is_new or not era
  if not sound or (type ~= 'stream' and type ~= 'none') then refused[#refused + 1] = i end
end
if repeated then
  for i = 1, rooms do
    local era = heads[i][1]
    reply[3 * i - 1] = era and shift > 0 and string.format('%.0f', era + shift) or era or '0'
    reply[3 * i] = heads[i][2] or '0'
    reply[3 * i + 1] = heads[i][3] or '000000000000000000000000'
  end
  return reply
end

if #refused > 1 then return refused end
if is_new then
  local type = redis.call('TYPE', KEYS[4]).ok
  if type ~= 'set' and type ~= 'none' then return damaged(KEYS[4], 'it is no set') end
end
-- The first writes are the only ones that can fail behind these looks: then they are taken back.
local ids, names = {}, {}
local function take_back()
  for i = 1, #ids do
    if begun[i] then redis.call('DEL', KEYS[3 + 2 * i]) else redis.call('XDEL', KEYS[3 + 2 * i], ids[i]) end
  end
end
for i = 1, rooms do
  local id = redis.pcall('XADD', KEYS[3 + 2 * i], '*', 'e', ARGV[3 * i + 8])
  if id.err then
    take_back()
    return {3, i}
  end
  ids[i] = id
  names[i] = ARGV[3 * i + 6]
end
-- A call takes some 8,000 arguments.
for at = 1, rooms, 1000 do
  local added = redis.pcall('SADD', KEYS[3], unpack(names, at, math.min(at + 999, rooms)))
  if type(added) == 'table' then
    take_back()
    return damaged(KEYS[3], 'it is no set')
  end
end

local bell = {append + 1, ARGV[1], number, ARGV[4], ''}
local asked, poked
for i = 1, rooms do
  local name, top, id = names[i], tops[i] or ARGV[3 * i + 7], ids[i]
  local era, seq = heads[i][1], heads[i][2]
  if not era then
    eras = eras + 1
    era, seq = eras, '0'
    redis.call('HSET', KEYS[4 + 2 * i], 'era', era, 'seq', '0', 'cursor', '0-0', 'top', top, 'last', id)
    redis.call('SADD', KEYS[4], name)
  else
    redis.call('HSET', KEYS[4 + 2 * i], 'top', top, 'last', id)
  end
  bell[3 * i + 3] = name
  bell[3 * i + 4] = id
  bell[3 * i + 5] = ARGV[3 * i + 8]
  reply[3 * i - 1] = shift > 0 and string.format('%.0f', era + shift) or era
  reply[3 * i] = seq
  reply[3 * i + 1] = top
  local gateways = heads[i][4] or ''
  if gateways ~= '' and not asked then asked, poked = {[ARGV[1]] = true}, {} end
  for at = 1, #gateways, 32 do
    local gateway = string.sub(gateways, at, at + 31)
    if not asked[gateway] then
      asked[gateway] = true
      local promised = string.match(redis.call('HGET', KEYS[2], gateway) or '', '|(%x+)|0|')
      if promised and promised < ARGV[8] then
        poked[#poked + 1] = ARGV[6] .. gateway
        bell[5] = bell[5] .. gateway
      end
    end
  end
end
if eras == before then
  redis.call('HSET', KEYS[1], 'append', append + 1)
else
  redis.call('HSET', KEYS[1], 'append', append + 1, 'eras', eras)
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2] .. '|' .. ARGV[4] .. '|0|' .. server)
redis.call('PUBLISH', ARGV[5], cmsgpack.pack(bell))
for i = 1, poked and #poked or 0 do
  redis.call('PUBLISH', poked[i], ARGV[7])
end
return reply
