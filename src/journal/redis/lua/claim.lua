#!lua
-- Takes a shard over.
--
-- Guarantee: only from the owner that the caller saw, so that of many claims one wins; the epoch rises every time. The
-- first claim at a server keeps what it found: the last commit, and the epoch while nobody has shown that none is missing. An
-- owner that did not let go, and is not the one that claims, may have been killed by what it resolved: that is noted in each
-- room that had something unresolved, in the same step (rule C6). The states' keys cannot be known before; they share the hash tag.
--
-- KEYS  1 shard, 2 active
-- ARGV  1 epoch seen, 2 owner seen (both empty: nobody), 3 worker, 4 what the rooms' state keys begin with, 5 server
-- Returns {0, epoch} done, {1} somebody was faster
local shard = redis.call('HMGET', KEYS[1], 'epoch', 'owner', 'server', 'commit')
if shard[2] then
  if shard[1] ~= ARGV[1] or shard[2] ~= ARGV[2] then return {1} end
elseif ARGV[2] ~= '' then
  return {1}
end
if shard[3] ~= ARGV[5] then
  redis.call('HSET', KEYS[1], 'server', ARGV[5], 'found', shard[4] or '0', 'doubt', shard[1] or '0')
end
local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('HSET', KEYS[1], 'owner', ARGV[3])
if shard[2] and shard[2] ~= ARGV[3] then
  for _, name in ipairs(redis.call('SMEMBERS', KEYS[2])) do
    local state = redis.pcall('HMGET', ARGV[4] .. name, 'seq', 'deaths_at', 'deaths')
    if state[1] then
      local deaths = 1
      if state[1] == state[2] then deaths = tonumber(state[3]) + 1 end
      redis.call('HSET', ARGV[4] .. name, 'deaths_at', state[1], 'deaths', deaths)
    end
  end
end
return {0, epoch}
