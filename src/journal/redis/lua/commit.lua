#!lua
-- Makes a batch of a shard's verdicts final, then publishes the pushes that came with it: none where a verdict must have
-- survived more than this server before anyone sees it.
--
-- Guarantee: one atomic step, all of it or nothing; only for the lease's owner, and only for the stored number + 1. The
-- same number by the same lease is done already and writes nothing. All checks come before the first write.
--
-- KEYS  1 shard, 2 active, then per room: room, out, state, snapshot
-- ARGV  1 epoch, 2 owner, 3 number, 4 count of rooms,
--       then per room: name, era, from, to, cursor, verdicts, what (bit 1 a snapshot, bit 2 a trim), snapshot,
--                      trim position, trim verdict ID, gateways and trim points, each or '-' for those of before,
--       then per push: channel, message
-- A room's era is the stored one and the shard's shift.
-- Returns {0}            done
--         {1}            fenced: another lease, or another number
--         {2, i, ...}    refused: the rooms, counted from 1, whose era or seq is another, or one of whose keys is damaged
-- Refusals: LASTHIT for a damaged record of the shard
local function damaged(key, why) return redis.error_reply('LASTHIT ' .. key .. ' is damaged: ' .. why) end

local shard = redis.pcall('HMGET', KEYS[1], 'epoch', 'owner', 'commit', 'commit_epoch', 'shift')
if shard.err then return damaged(KEYS[1], 'it is no hash') end
if shard[1] ~= ARGV[1] or shard[2] ~= ARGV[2] then return {1} end
if shard[3] == ARGV[3] and shard[4] == ARGV[1] then return {0} end
local stored, shift = tonumber(shard[3] or 0), tonumber(shard[5] or 0)
if not stored or not shift or stored < 0 or shift < 0 or stored + shift > 1e15 then
  return damaged(KEYS[1], 'commit or shift is no number')
end
if tonumber(ARGV[3]) ~= stored + 1 then return {1} end

local rooms = tonumber(ARGV[4])
local reply = {2}
local resolved = {}
for i = 1, rooms do
  local state = redis.pcall('HMGET', KEYS[4 * i + 1], 'era', 'seq', 'last')
  local era, seq = state[1], ARGV[12 * i - 5]
  if era and shift > 0 then era = string.format('%.0f', (tonumber(era) or 0) + shift) end
  local type = redis.call('TYPE', KEYS[4 * i - 1]).ok
  -- Verdicts behind the room's seq, or a key of another type, would refuse the next ones.
  local beyond = redis.pcall('XREAD', 'STREAMS', KEYS[4 * i], seq .. '-0')
  if era ~= ARGV[12 * i - 6] or state[2] ~= seq or (type ~= 'stream' and type ~= 'none') or beyond then
    reply[#reply + 1] = i
  end
  if ARGV[12 * i - 3] == state[3] then resolved[#resolved + 1] = ARGV[12 * i - 7] end
end
if #reply > 1 then return reply end
-- The first write is the only one that can fail behind these looks. A call takes some 8,000 arguments.
for at = 1, #resolved, 1000 do
  local removed = redis.pcall('SREM', KEYS[2], unpack(resolved, at, math.min(at + 999, #resolved)))
  if type(removed) == 'table' then return damaged(KEYS[2], 'it is no set') end
end

for i = 1, rooms do
  local key, arg = 4 * i - 2, 12 * i - 8
  local from, to, cursor, what = ARGV[arg + 3], ARGV[arg + 4], ARGV[arg + 5], ARGV[arg + 7]
  if to ~= from then redis.call('XADD', KEYS[key + 2], to .. '-0', 'v', ARGV[arg + 6]) end
  if what == '1' or what == '3' then
    redis.call('SET', KEYS[key + 4], ARGV[arg + 8])
    redis.call('HSET', KEYS[key + 3], 'seq', to, 'cursor', cursor, 'snapshot_seq', to, 'snapshot_cursor', cursor)
  else
    redis.call('HSET', KEYS[key + 3], 'seq', to, 'cursor', cursor)
  end
  if what == '2' or what == '3' then
    redis.call('XTRIM', KEYS[key + 1], 'MINID', '~', ARGV[arg + 9])
    redis.call('XTRIM', KEYS[key + 2], 'MINID', '~', ARGV[arg + 10])
  end
  if ARGV[arg + 11] ~= '-' then redis.call('HSET', KEYS[key + 3], 'gateways', ARGV[arg + 11]) end
  if ARGV[arg + 12] ~= '-' then redis.call('HSET', KEYS[key + 3], 'trims', ARGV[arg + 12]) end
end
redis.call('HSET', KEYS[1], 'commit', ARGV[3], 'commit_epoch', ARGV[1])
for i = 12 * rooms + 5, #ARGV, 2 do
  redis.call('PUBLISH', ARGV[i], ARGV[i + 1])
end
return {0}
