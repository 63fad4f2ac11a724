#!lua
-- Appends a gateway's flush to the streams of its rooms, and rings the shard's bell with it.
--
-- Guarantee: one atomic step (rule W4). It writes a flush only if its number is the stored one + 1 and its `previous` is the
-- stored watermark. A number that is stored already is answered with the current heads, and nothing is written. All checks
-- come before the first write, except for the types of the streams and of the set `active`: if such a write fails, the earlier
-- ones are undone. Other gateways in these rooms get the poke if their watermark is below `idle below`; the bell names them.
-- Moments are compared as text of 24 digits, because Lua's numbers are exact only up to 2^53. A room's era is the stored era
-- plus the shard's shift.
--
-- KEYS  1 shard, 2 gateways, 3 active, 4 rooms, then per room: room, state
-- ARGV  1 incarnation, 2 number, 3 previous, 4 watermark, 5 channel of the bell, 6 prefix of push channels, 7 poke,
--       8 idle below, 9 seed of the rooms that it creates, 10 home of the gateway, 11 most rooms of a shard, then per room: name,
--       top, entry
-- Returns {0, era, seq, top, ...}   stored: the head of each room
--         {1, number, watermark}    gap: what is stored (rule W3)
--         {2}                       not registered, or fenced (rule W1)
--         {3, i, ...}               refused: the indexes (from 1) of rooms with a damaged key; there may be more such rooms
--         {4, home or '', address}  the shard's home is another (rule H2)
--         {5, i, ...}               refused: the indexes of new rooms for which the shard has no place
-- Errors: LASTHIT for a damaged record of the shard
local function damaged(key, why) return redis.error_reply('LASTHIT ' .. key .. ' is damaged: ' .. why) end
local function count(text) return #text < 16 and string.find(text, '^%d+$') and tonumber(text) end

local shard = redis.pcall('HMGET', KEYS[1], 'append', 'eras', 'shift', 'home')
if shard.err then return damaged(KEYS[1], 'it is no hash') end
if shard[4] ~= ARGV[10] then return {4, shard[4] or '', redis.call('HGET', KEYS[1], 'address') or ''} end
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
local append, eras, shift = count(shard[1] or '0'), count(shard[2] or '0'), count(shard[3] or '0')
if not append or not eras or not shift or append + eras + shift > 1e15 then
  return damaged(KEYS[1], 'append, eras or shift is no number')
end
local before = eras

local rooms = (#KEYS - 4) / 2
local reply = {0}
local heads = {}
local refused = {3}
for i = 1, rooms do
  local state = redis.pcall('HMGET', KEYS[4 + 2 * i], 'era', 'seq', 'top', 'gateways')
  local era, seq, top = state[1], state[2], state[3]
  local appended = ARGV[3 * i + 10]
  local sound
  if era then
    sound = seq and top and era ~= '' and seq ~= '' and #era < 16 and #seq < 16 and #top == 24 and string.find(era .. seq, '^%d+$')
    if sound and top > appended then
      appended, sound = top, string.find(top, '^%x+$')
    end
    if sound and shift > 0 then era = string.format('%.0f', era + shift) end
  else
    sound = not state.err and not seq and not top
    eras = eras + 1
    era, seq, top = string.format('%.0f', eras + shift), '0', '000000000000000000000000'
  end
  if repeated then
    if not sound or not state[1] then era, seq, top = '0', '0', '000000000000000000000000' end
    appended = top
  elseif not sound then
    refused[#refused + 1] = i
  end
  heads[i] = state
  reply[3 * i - 1], reply[3 * i], reply[3 * i + 1] = era, seq, appended
end
if repeated then return reply end

if #refused > 1 then return refused end
if eras > before then
  local kind = redis.call('TYPE', KEYS[4]).ok
  if kind ~= 'set' and kind ~= 'none' then return damaged(KEYS[4], 'it is no set') end
  local free = tonumber(ARGV[11]) - redis.call('SCARD', KEYS[4])
  local full = {5}
  for i = 1, eras - before > free and rooms or 0 do
    if not heads[i][1] then
      free = free - 1
      if free < 0 then full[#full + 1] = i end
    end
  end
  if #full > 1 then return full end
end
-- Only the first writes can still fail after these checks. Then they are undone.
local bell = {append + 1, ARGV[1], number, ARGV[4], ''}
local names, written, failed = {}, 0, nil
for i = 1, rooms do
  local name, entry = ARGV[3 * i + 9], ARGV[3 * i + 11]
  local id = redis.pcall('XADD', KEYS[3 + 2 * i], '*', 'e', entry)
  if id.err then
    failed = {3, i}
    break
  end
  names[i], written = name, i
  bell[3 * i + 3], bell[3 * i + 4], bell[3 * i + 5] = name, id, entry
end
-- `unpack` takes at most some 8,000 values.
for at = 1, failed and 0 or rooms, 1000 do
  if type(redis.pcall('SADD', KEYS[3], unpack(names, at, math.min(at + 999, rooms)))) == 'table' then
    failed = damaged(KEYS[3], 'it is no set')
  end
end
if failed then
  for i = 1, written do
    local key = KEYS[3 + 2 * i]
    redis.call('XDEL', key, bell[3 * i + 4])
    if not heads[i][1] and redis.call('XLEN', key) == 0 then redis.call('DEL', key) end
  end
  return failed
end

local asked, poked
eras = before
for i = 1, rooms do
  local top, id = reply[3 * i + 1], bell[3 * i + 4]
  if heads[i][1] then
    redis.call('HSET', KEYS[4 + 2 * i], 'top', top, 'last', id)
  else
    eras = eras + 1
    redis.call('HSET', KEYS[4 + 2 * i], 'era', eras, 'seq', '0', 'cursor', '0-0', 'top', top, 'last', id, 'seed', ARGV[9])
    redis.call('SADD', KEYS[4], names[i])
  end
  local gateways = heads[i][4] or ''
  if gateways ~= '' and not asked then asked, poked = {[ARGV[1]] = true}, {} end
  for at = 1, #gateways, 32 do
    local gateway = string.sub(gateways, at, at + 31)
    if not asked[gateway] then
      asked[gateway] = true
      local promised = string.match(redis.call('HGET', KEYS[2], gateway) or '', '|(%x+)|0|')
      if promised and promised < ARGV[8] then
        -- The channel is the process's; 8 digits count its turns.
        poked[#poked + 1] = ARGV[6] .. string.sub(gateway, 1, 8) .. '00000000' .. string.sub(gateway, 17)
        bell[5] = bell[5] .. gateway
      end
    end
  end
end
redis.call('HSET', KEYS[1], 'append', append + 1)
if eras > before then redis.call('HSET', KEYS[1], 'eras', eras) end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2] .. '|' .. ARGV[4] .. '|0|' .. server)
redis.call('PUBLISH', ARGV[5], cmsgpack.pack(bell))
for i = 1, poked and #poked or 0 do
  redis.call('PUBLISH', poked[i], ARGV[7])
end
return reply
