#!lua
-- Holds what a worker knows of a shard under another server against what this server found when it met the shard.
--
-- Guarantee: one atomic step. When a commit is missing that was final, every room begins a new era, its state as it is:
-- once for each server, counted as a commit, of nobody's; the shift of the shard's eras jumps, so that rooms whose state is
-- damaged have a new one too when they are mended. When the witness's is the last ownership that was found, and nothing
-- that it sent is missing, the doubt is over. All checks come before the first write.
--
-- KEYS  1 shard, 2 rooms
-- ARGV  1 server, 2 by how much the shift of eras jumps, 3 the witness's server, 4 its epoch or empty, 5 its last commit that
--       was final, 6 its last commit that was sent, 7 what the rooms' state keys begin with
-- Returns the count of rooms with verdicts that began a new era
-- Refusals: LASTHIT for a damaged record of the shard
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
local rooms = {}
if lost and shard[6] ~= ARGV[1] then
  rooms = redis.pcall('SMEMBERS', KEYS[2])
  if rooms.err then return damaged(KEYS[2], 'it is no set') end
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
local renewed = 0
for _, name in ipairs(rooms) do
  local seq = redis.pcall('HGET', ARGV[7] .. name, 'seq')
  if seq and not seq.err and seq ~= '0' then renewed = renewed + 1 end
end
return renewed
