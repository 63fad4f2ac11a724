#!lua
-- Takes a shard over.
--
-- Guarantee: only from the owner that the caller saw, so that of many claims one wins; the epoch rises every time. The
-- first claim at a server keeps what it found: the last commit, and the epoch while nobody has shown that none is missing. An
-- owner that did not let go, and is not the one that claims, may have been killed by what it resolved: that is noted in each
-- room that had something unresolved, in the same step (rule C6), but for those whose state is damaged: their load says so.
-- The states' keys cannot be known before; they share the hash tag. All checks come before the first write.
--
-- KEYS  1 shard, 2 active
-- ARGV  1 epoch seen, 2 owner seen (both empty: nobody), 3 worker, 4 what the rooms' state keys begin with, 5 server
-- Returns {0, epoch} done, {1} somebody was faster
-- Refusals: LASTHIT for a damaged record of the shard
local function damaged(key, why) return redis.error_reply('LASTHIT ' .. key .. ' is damaged: ' .. why) end
local function count(text) return #text < 16 and string.find(text, '^%d+$') and tonumber(text) end

local shard = redis.pcall('HMGET', KEYS[1], 'epoch', 'owner', 'server', 'commit')
if shard.err then return damaged(KEYS[1], 'it is no hash') end
local epoch, commit = shard[1] or '0', shard[4] or '0'
if not count(epoch) or not count(commit) then return damaged(KEYS[1], 'epoch or commit is no number') end
if shard[2] and (not shard[1] or #shard[2] ~= 32 or string.find(shard[2], '[^%da-f]')) then
  return damaged(KEYS[1], 'owner is no incarnation, or has no epoch')
end
if shard[2] then
  if count(epoch) ~= tonumber(ARGV[1]) or shard[2] ~= ARGV[2] then return {1} end
elseif ARGV[2] ~= '' then
  return {1}
end
local active = redis.pcall('SMEMBERS', KEYS[2])
if active.err then return damaged(KEYS[2], 'it is no set') end

if shard[3] ~= ARGV[5] then
  redis.call('HSET', KEYS[1], 'server', ARGV[5], 'found', commit, 'doubt', epoch)
end
redis.call('HSET', KEYS[1], 'epoch', count(epoch) + 1, 'owner', ARGV[3])
if shard[2] and shard[2] ~= ARGV[3] then
  for _, name in ipairs(active) do
    local state = redis.pcall('HMGET', ARGV[4] .. name, 'seq', 'deaths_at', 'deaths')
    local deaths = state[1] and (state[1] ~= state[2] and 0 or count(state[3] or ''))
    if deaths then redis.call('HSET', ARGV[4] .. name, 'deaths_at', state[1], 'deaths', deaths + 1) end
  end
end
return {0, count(epoch) + 1}
