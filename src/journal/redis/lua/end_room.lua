#!lua flags=allow-oom
-- Ends a room (rule C7): deletes all its keys. The shard's count of eras stays, so no era comes twice.
--
-- Guarantee: one atomic step, only for the owner of the lease, and only if the cursor is at the tail of the room's stream and
-- the seq is the given one. A room that does not exist has ended already. All checks come before the first write.
-- The list of due rooms is a hint: one that is damaged stops nothing.
--
-- KEYS  1 shard, 2 active, 3 rooms, 4 room, 5 out, 6 state, 7 snapshot, 8 parts, 9 due
-- ARGV  1 epoch, 2 owner, 3 name of the room, 4 seq
-- Returns 0 ended, 1 the lease is lost, 2 the cursor is not at the tail, or the seq is another
-- Errors: LASTHIT for a damaged record of the shard, DAMAGED for one of the room
local shard = redis.pcall('HMGET', KEYS[1], 'epoch', 'owner')
if shard.err then return redis.error_reply('LASTHIT ' .. KEYS[1] .. ' is damaged: it is no hash') end
if shard[1] ~= ARGV[1] or shard[2] ~= ARGV[2] then return 1 end
for i = 2, 3 do
  local type = redis.call('TYPE', KEYS[i]).ok
  if type ~= 'set' and type ~= 'none' then
    return redis.error_reply('LASTHIT ' .. KEYS[i] .. ' is damaged: it is no set')
  end
end
local state = redis.pcall('HMGET', KEYS[6], 'seq', 'cursor', 'last')
if state.err then return redis.error_reply('DAMAGED ' .. KEYS[6] .. ' is no hash') end
if state[1] and (state[1] ~= ARGV[4] or state[2] ~= state[3]) then return 2 end
redis.call('UNLINK', KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8])
redis.call('SREM', KEYS[2], ARGV[3])
redis.call('SREM', KEYS[3], ARGV[3])
redis.pcall('ZREM', KEYS[9], ARGV[3])
return 0
