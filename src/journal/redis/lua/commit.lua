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
--                      trim position, trim verdict ID,
--       then per push: channel, message
-- Returns {0}            done
--         {1}            fenced: another lease, or another number
--         {2, i, ...}    refused: the rooms, counted from 1, whose era or seq is another
local shard = redis.call('HMGET', KEYS[1], 'epoch', 'owner', 'commit', 'commit_epoch')
if shard[1] ~= ARGV[1] or shard[2] ~= ARGV[2] then return {1} end
if shard[3] == ARGV[3] and shard[4] == ARGV[1] then return {0} end
if tonumber(ARGV[3]) ~= tonumber(shard[3] or '0') + 1 then return {1} end

local rooms = tonumber(ARGV[4])
local reply = {2}
local last = {}
for i = 1, rooms do
  local state = redis.call('HMGET', KEYS[4 * i + 1], 'era', 'seq', 'last')
  if state[1] ~= ARGV[10 * i - 4] or state[2] ~= ARGV[10 * i - 3] then reply[#reply + 1] = i end
  last[i] = state[3]
end
if #reply > 1 then return reply end

for i = 1, rooms do
  local key, arg = 4 * i - 2, 10 * i - 6
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
  if cursor == last[i] then redis.call('SREM', KEYS[2], ARGV[arg + 1]) end
end
redis.call('HSET', KEYS[1], 'commit', ARGV[3], 'commit_epoch', ARGV[1])
for i = 10 * rooms + 5, #ARGV, 2 do
  redis.call('PUBLISH', ARGV[i], ARGV[i + 1])
end
return {0}
