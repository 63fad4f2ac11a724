#!lua flags=no-writes
-- Reads one page of a room's verdicts.
--
-- Guarantee: a page is one consistent view.
--
-- KEYS  1 out, 2 state, 3 shard
-- ARGV  1 seq after which the page begins, 2 most batches, 3 bytes after which the page ends
-- Returns {last commit, era, seq, {batch, ...}}; era 0 means that the room does not exist
-- Errors: LASTHIT for a damaged record of the shard, DAMAGED for one of the room
local state = redis.call('HMGET', KEYS[2], 'era', 'seq')
local shard = redis.pcall('HMGET', KEYS[3], 'commit', 'shift')
if shard.err then return redis.error_reply('LASTHIT ' .. KEYS[3] .. ' is damaged: it is no hash') end
local commit = shard[1] or '0'
if not state[1] then return {commit, '0', '0', {}} end
local era = tonumber(state[1])
if not era or not tonumber(state[2]) then return redis.error_reply('DAMAGED ' .. KEYS[2] .. ' has no era or seq') end
local batches, behind, left, bytes, largest = {}, ARGV[1] .. '-0', tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[3]) / 4
repeat
  -- At most two at a time, because the next may be large.
  local count = math.max(1, math.min(2, left, math.floor(bytes / largest)))
  local read = redis.call('XRANGE', KEYS[1], '(' .. behind, '+', 'COUNT', count)
  largest = 64
  for i = 1, #read do
    local batch = read[i][2][2]
    batches[#batches + 1], behind = batch, read[i][1]
    left, bytes = left - 1, bytes - #batch
    if left <= 0 or bytes <= 0 then break end
    if #batch > largest then largest = #batch end
  end
until left <= 0 or bytes <= 0 or #read < count
return {commit, string.format('%.0f', era + tonumber(shard[2] or '0')), state[2], batches}
