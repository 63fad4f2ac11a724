#!lua
-- Compares what a worker knows of a shard from another server with what this server found when it first met the shard.
--
-- Guarantee: one atomic step. If a final commit is missing, all rooms begin a new era with their present state, once for each
-- server. This counts as a commit without an owner. Only the shard's shift of eras jumps, so a room with a damaged state has a
-- new era when it is repaired, too, and the step takes no longer where there are many rooms. If the witness owned the shard last, and nothing that it sent is missing, the doubt is
-- over. All checks come before the first write.
--
-- KEYS  1 shard, 2 rooms
-- ARGV  1 server, 2 size of a jump of the eras' shift, 3 the witness's server, 4 its epoch or empty, 5 its last final commit,
--       6 the last commit that it sent
-- Returns the count of rooms that began a new era; 0 in a shard without a commit
-- Errors: LASTHIT for a damaged record of the shard
local function damaged(key, why) return redis.error_reply('LASTHIT ' .. key .. ' is damaged: ' .. why) end
local function count(text) return #text < 16 and string.find(text, '^%d+$') and tonumber(text) end

if ARGV[3] == ARGV[1] then return 0 end
local shard = redis.pcall('HMGET', KEYS[1], 'commit', 'epoch', 'server', 'found', 'doubt', 'renewed', 'shift')
if shard.err then return damaged(KEYS[1], 'it is no hash') end
local commit, shift = count(shard[1] or '0'), count(shard[7] or '0')
local met = shard[3] == ARGV[1]
local found, doubt = commit, shard[2] or '0'
if met then found, doubt = count(shard[4] or ''), shard[5] end
if not commit or not shift or not found or (doubt and not count(doubt)) then
  return damaged(KEYS[1], 'commit, epoch, found, doubt or shift is no number')
end
local lost = tonumber(ARGV[5]) > found
local renewed = 0
if lost and shard[6] ~= ARGV[1] then
  renewed = redis.pcall('SCARD', KEYS[2])
  if type(renewed) == 'table' then return damaged(KEYS[2], 'it is no set') end
  -- Before the first commit no room has verdicts that could be missing.
  if commit == 0 then renewed = 0 end
end

if not met then redis.call('HSET', KEYS[1], 'server', ARGV[1], 'found', commit, 'doubt', doubt) end
if not lost then
  if doubt == ARGV[4] and tonumber(ARGV[6]) <= found then redis.call('HDEL', KEYS[1], 'doubt') end
  return 0
end
if shard[6] == ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'commit', commit + 1, 'renewed', ARGV[1], 'commit_epoch', '0', 'found', commit + 1,
  'shift', string.format('%.0f', shift + tonumber(ARGV[2])))
redis.call('HDEL', KEYS[1], 'doubt')
return renewed
