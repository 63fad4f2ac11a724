#!lua
-- Holds what a worker knows of a shard under another server against what this server found when it met the shard.
--
-- Guarantee: one atomic step. When a commit is missing that was final, every room begins a new era, its state as it is:
-- once for each server, counted as a commit, of nobody's. When the witness's is the last ownership that was found, and
-- nothing that it sent is missing, the doubt is over.
--
-- KEYS  1 shard, 2 rooms
-- ARGV  1 server, 2 by how much the count of eras jumps, 3 the witness's server, 4 its epoch or empty, 5 its last commit that
--       was final, 6 its last commit that was sent, 7 what the rooms' state keys begin with
-- Returns the count of rooms with verdicts that began a new era
if ARGV[3] == ARGV[1] then return 0 end
local shard = redis.call('HMGET', KEYS[1], 'commit', 'epoch', 'server', 'found', 'doubt', 'renewed')
local found, doubt = tonumber(shard[1] or '0'), shard[2] or '0'
if shard[3] == ARGV[1] then
  found, doubt = tonumber(shard[4]), shard[5]
else
  redis.call('HSET', KEYS[1], 'server', ARGV[1], 'found', shard[1] or '0', 'doubt', doubt)
end
if tonumber(ARGV[5]) <= found then
  if doubt == ARGV[4] and tonumber(ARGV[6]) <= found then redis.call('HDEL', KEYS[1], 'doubt') end
  return 0
end
if shard[6] == ARGV[1] then return 0 end
local commit = redis.call('HINCRBY', KEYS[1], 'commit', 1)
redis.call('HSET', KEYS[1], 'renewed', ARGV[1], 'commit_epoch', '0', 'found', commit)
redis.call('HDEL', KEYS[1], 'doubt')
redis.call('HINCRBY', KEYS[1], 'eras', ARGV[2])
local renewed = 0
for _, name in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local state = ARGV[7] .. name
  if redis.call('HGET', state, 'seq') ~= '0' then renewed = renewed + 1 end
  redis.call('HSET', state, 'era', redis.call('HINCRBY', KEYS[1], 'eras', 1))
end
return renewed
