#!lua
-- Makes a batch of a shard's verdicts final, then publishes the pushes that came with it: none where a verdict must have
-- survived more than this server before anyone sees it.
--
-- Guarantee: one atomic step, all of it or nothing; only for the lease's owner, and only for the stored number + 1. The
-- same number by the same lease is done already and writes nothing. All checks come before the first write.
--
-- KEYS  1 shard, 2 active, then per room: room, out, state; then per room with a snapshot: snapshot, parts
-- ARGV  1 epoch, 2 owner, 3 number, 4 count of rooms,
--       then per room: name, era, from, to, cursor, verdicts, what (bit 1 a snapshot, bit 2 a trim, bit 3 a snapshot that
--                      was written ahead), snapshot or name/count|seq|cursor, trim position, trim verdict ID, gateways and
--                      trim points, each or '-' for those of before,
--       then per push: channel, message
-- A room's era is the stored one and the shard's shift.
-- Returns {0}            done
--         {1}            fenced: another lease, or another number
--         {2, i, ...}    refused: the rooms, counted from 1, whose era or seq is another, one of whose keys is damaged, or
--                        of whose snapshot a part is missing
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

-- Whether a snapshot that was written ahead is not all there.
local function incomplete(parts, what)
  local name, count = string.match(what, '^(.+)/(%d+)|')
  for i = 0, count - 1 do
    if redis.pcall('HEXISTS', parts, name .. '/' .. i) ~= 1 then return true end
  end
  return false
end

local rooms = tonumber(ARGV[4])
local reply = {2}
local resolved = {}
local snapshots = 3 * rooms + 1
for i = 1, rooms do
  local key, arg = 3 * i - 1, 12 * i - 8
  local state, what = redis.pcall('HMGET', KEYS[key + 3], 'era', 'seq', 'last'), tonumber(ARGV[arg + 7])
  if what % 2 == 1 or what >= 4 then snapshots = snapshots + 2 end
  local era, seq = state[1], ARGV[arg + 3]
  if era and shift > 0 then era = string.format('%.0f', (tonumber(era) or 0) + shift) end
  local type = redis.call('TYPE', KEYS[key + 1]).ok
  -- Verdicts behind the room's seq, or a key of another type, would refuse the next ones.
  local beyond = redis.pcall('XREAD', 'STREAMS', KEYS[key + 2], seq .. '-0')
  if era ~= ARGV[arg + 2] or state[2] ~= seq or (type ~= 'stream' and type ~= 'none') or beyond
    or what >= 4 and incomplete(KEYS[snapshots + 1], ARGV[arg + 8]) then
    reply[#reply + 1] = i
  end
  if ARGV[arg + 5] == state[3] then resolved[#resolved + 1] = ARGV[arg + 1] end
end
if #reply > 1 then return reply end
-- The first write is the only one that can fail behind these looks. A call takes some 8,000 arguments.
for at = 1, #resolved, 1000 do
  local removed = redis.pcall('SREM', KEYS[2], unpack(resolved, at, math.min(at + 999, #resolved)))
  if type(removed) == 'table' then return damaged(KEYS[2], 'it is no set') end
end

snapshots = 3 * rooms + 1
for i = 1, rooms do
  local key, arg = 3 * i - 1, 12 * i - 8
  local from, to, cursor, what = ARGV[arg + 3], ARGV[arg + 4], ARGV[arg + 5], tonumber(ARGV[arg + 7])
  if to ~= from then redis.call('XADD', KEYS[key + 2], to .. '-0', 'v', ARGV[arg + 6]) end
  if what % 2 == 1 then
    snapshots = snapshots + 2
    redis.call('SET', KEYS[snapshots], ARGV[arg + 8])
    redis.call('HSET', KEYS[key + 3], 'seq', to, 'cursor', cursor, 'snapshot_seq', to, 'snapshot_cursor', cursor)
    redis.call('HDEL', KEYS[key + 3], 'snapshot_parts')
    redis.call('UNLINK', KEYS[snapshots + 1])
  elseif what >= 4 then
    snapshots = snapshots + 2
    local parts, seq, taken = string.match(ARGV[arg + 8], '^([^|]+)|([^|]+)|([^|]+)$')
    redis.call('HSET', KEYS[key + 3], 'seq', to, 'cursor', cursor, 'snapshot_seq', seq, 'snapshot_cursor', taken,
      'snapshot_parts', parts)
    local good = string.match(parts, '^[^/]+')
    for _, field in ipairs(redis.call('HKEYS', KEYS[snapshots + 1])) do
      if string.match(field, '^[^/]+') ~= good then redis.call('HDEL', KEYS[snapshots + 1], field) end
    end
    redis.call('UNLINK', KEYS[snapshots])
  else
    redis.call('HSET', KEYS[key + 3], 'seq', to, 'cursor', cursor)
  end
  if what % 4 >= 2 then
    -- No more in one step; the next snapshots name the same place. The server's own bound is a tenth.
    redis.call('XTRIM', KEYS[key + 1], 'MINID', '~', ARGV[arg + 9], 'LIMIT', 100000)
    redis.call('XTRIM', KEYS[key + 2], 'MINID', '~', ARGV[arg + 10], 'LIMIT', 100000)
  end
  if ARGV[arg + 11] ~= '-' then redis.call('HSET', KEYS[key + 3], 'gateways', ARGV[arg + 11]) end
  if ARGV[arg + 12] ~= '-' then redis.call('HSET', KEYS[key + 3], 'trims', ARGV[arg + 12]) end
end
redis.call('HSET', KEYS[1], 'commit', ARGV[3], 'commit_epoch', ARGV[1])
for i = 12 * rooms + 5, #ARGV, 2 do
  redis.call('PUBLISH', ARGV[i], ARGV[i + 1])
end
return {0}
