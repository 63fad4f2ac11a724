#!lua
-- Appends one gateway's flush to its rooms' streams, and rings the shard's bell with it.
--
-- Guarantee: one atomic step; exactly stored number + 1 with the stored watermark as `previous` is written, a number
-- at or below the stored one is answered with the current heads and writes nothing. All checks come before the first
-- write. The other gateways in these rooms whose watermark is below `idle below` are sent the poke; the bell says who.
-- Moments are compared as text of 24 digits: numbers here are exact to 2^53 only.
--
-- KEYS  1 shard, 2 gateways, 3 active, 4 rooms, then per room: room, state
-- ARGV  1 incarnation, 2 number, 3 previous, 4 watermark, 5 bell channel, 6 what push channels begin with, 7 poke,
--       8 idle below, then per room: name, top, entry
-- Returns {0, era, seq, top, ...}   stored: each room's head
--         {1, number, watermark}    gap: what is stored
--         {2}                       not registered, or fenced
--         {3, i, ...}               refused: the rooms, counted from 1, one of whose keys is damaged
-- Refusals: LASTHIT for a damaged record
local record = redis.call('HGET', KEYS[2], ARGV[1])
if not record then return {2} end
local stored, watermark, fenced, server = string.match(record, '^(%d+)|(%x+)|([01])|(%x+)$')
if not stored then return redis.error_reply('LASTHIT gateway record is damaged: ' .. record) end
if fenced == '1' then return {2} end

local number = tonumber(ARGV[2])
local repeated = number <= tonumber(stored)
if not repeated and (number ~= tonumber(stored) + 1 or ARGV[3] ~= watermark) then
  return {1, stored, watermark}
end

local rooms = (#KEYS - 4) / 2
local reply = {0}
local heads = {}
local refused = {3}
for i = 1, rooms do
  heads[i] = redis.pcall('HMGET', KEYS[4 + 2 * i], 'era', 'seq', 'top', 'gateways')
  local type = redis.call('TYPE', KEYS[3 + 2 * i]).ok
  if heads[i].err or (type ~= 'stream' and type ~= 'none') then refused[#refused + 1] = i end
end
if repeated then
  for i = 1, rooms do
    reply[3 * i - 1] = heads[i][1] or '0'
    reply[3 * i] = heads[i][2] or '0'
    reply[3 * i + 1] = heads[i][3] or '000000000000000000000000'
  end
  return reply
end

if #refused > 1 then return refused end

local bell = {redis.call('HINCRBY', KEYS[1], 'append', 1), ARGV[1], number, ARGV[4], ''}
local names, asked, poked = {}, nil, nil
for i = 1, rooms do
  local name, top, entry = ARGV[3 * i + 6], ARGV[3 * i + 7], ARGV[3 * i + 8]
  local era, seq, highest = heads[i][1], heads[i][2], heads[i][3]
  local id = redis.call('XADD', KEYS[3 + 2 * i], '*', 'e', entry)
  if not era then
    era = redis.call('HINCRBY', KEYS[1], 'eras', 1)
    seq = '0'
    redis.call('HSET', KEYS[4 + 2 * i], 'era', era, 'seq', '0', 'cursor', '0-0', 'top', top, 'last', id)
    redis.call('SADD', KEYS[4], name)
  else
    if top < highest then top = highest end
    redis.call('HSET', KEYS[4 + 2 * i], 'top', top, 'last', id)
  end
  names[i] = name
  bell[3 * i + 3] = name
  bell[3 * i + 4] = id
  bell[3 * i + 5] = entry
  reply[3 * i - 1] = era
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
if rooms > 0 then redis.call('SADD', KEYS[3], unpack(names)) end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2] .. '|' .. ARGV[4] .. '|0|' .. server)
redis.call('PUBLISH', ARGV[5], cmsgpack.pack(bell))
for i = 1, poked and #poked or 0 do
  redis.call('PUBLISH', poked[i], ARGV[7])
end
return reply
