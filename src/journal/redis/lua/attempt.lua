#!lua
-- Counts an attempt at a room's next event before it is made, so that it counts even if the worker does not survive it (rule
-- C6).
--
-- Guarantee: one atomic step, only for the owner of the lease. The count starts again when the seq changes. An attempt with
-- the same name as the last one is not counted again. All checks come before the first write.
--
-- KEYS  1 shard, 2 state
-- ARGV  1 epoch, 2 owner, 3 name of the attempt, unique under this lease
-- Returns {0, attempts} counted (0 for a room that does not exist), {1} the lease is lost
-- Errors: LASTHIT for a damaged record of the shard, DAMAGED for one of the room
local shard = redis.pcall('HMGET', KEYS[1], 'epoch', 'owner')
if shard.err then return redis.error_reply('LASTHIT ' .. KEYS[1] .. ' is damaged: it is no hash') end
if shard[1] ~= ARGV[1] or shard[2] ~= ARGV[2] then return {1} end
local state = redis.pcall('HMGET', KEYS[2], 'seq', 'attempts_at', 'attempts', 'attempt')
if state.err then return redis.error_reply('DAMAGED ' .. KEYS[2] .. ' is no hash') end
if not state[1] then return {0, 0} end
local name = ARGV[1] .. '.' .. ARGV[3]
local attempts = 1
if state[1] == state[2] then
  local counted = state[3] or ''
  if #counted > 9 or not string.find(counted, '^%d+$') then
    return redis.error_reply('DAMAGED ' .. KEYS[2] .. ' has a count of attempts that is no number')
  end
  if state[4] == name then return {0, counted} end
  attempts = tonumber(counted) + 1
end
redis.call('HSET', KEYS[2], 'attempts_at', state[1], 'attempts', attempts, 'attempt', name)
return {0, attempts}
