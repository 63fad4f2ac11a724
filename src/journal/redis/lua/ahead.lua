#!lua
-- Stores a part of a room's snapshot before the commit that makes the snapshot valid.
--
-- Guarantee: one atomic, idempotent step, only for the owner of the lease. Nothing is written if the room has another era, or
-- a snapshot of this seq or a later one. The first part (index 0) deletes parts with other names, except those of the valid
-- snapshot. All checks come before the first write.
--
-- KEYS  1 shard, 2 state, 3 parts
-- ARGV  1 epoch, 2 owner, 3 era, 4 seq of the snapshot, 5 name of the snapshot, 6 index of the part, 7 part
-- Returns 0 stored, or not needed any more; 1 the lease is lost
-- Errors: LASTHIT for a damaged record of the shard, DAMAGED for one of the room
local shard = redis.pcall('HMGET', KEYS[1], 'epoch', 'owner', 'shift')
if shard.err then return redis.error_reply('LASTHIT ' .. KEYS[1] .. ' is damaged: it is no hash') end
if shard[1] ~= ARGV[1] or shard[2] ~= ARGV[2] then return 1 end
local shift = tonumber(shard[3] or '0')
if not shift then return redis.error_reply('LASTHIT ' .. KEYS[1] .. ' is damaged: shift is no number') end
local state = redis.pcall('HMGET', KEYS[2], 'era', 'snapshot_seq', 'snapshot_parts')
if state.err then return redis.error_reply('DAMAGED ' .. KEYS[2] .. ' is no hash') end
if not state[1] then return 0 end
local era, seq = tonumber(state[1]), tonumber(state[2] or '0')
if not era or not seq then return redis.error_reply('DAMAGED ' .. KEYS[2] .. ' has an era or a snapshot that is no number') end
local type = redis.call('TYPE', KEYS[3]).ok
if type ~= 'hash' and type ~= 'none' then return redis.error_reply('DAMAGED ' .. KEYS[3] .. ' is no hash') end
if string.format('%.0f', era + shift) ~= ARGV[3] or tonumber(ARGV[4]) <= seq then return 0 end
if ARGV[6] == '0' then
  local good = state[3] and string.match(state[3], '^[^/]+')
  for _, field in ipairs(redis.call('HKEYS', KEYS[3])) do
    local name = string.match(field, '^[^/]+')
    if name ~= good and name ~= ARGV[5] then redis.call('HDEL', KEYS[3], field) end
  end
end
redis.call('HSET', KEYS[3], ARGV[5] .. '/' .. ARGV[6], ARGV[7])
return 0
