#!lua flags=allow-oom
-- Deletes the records of fenced gateways of a shard. A gateway without a record can append no more than a fenced one.
--
-- Guarantee: idempotent, only for the owner of the lease, and only for fenced gateways. A damaged record stays until it is
-- fenced. All checks come before the first write.
--
-- KEYS  1 shard, 2 gateways
-- ARGV  1 epoch, 2 owner, then incarnations
-- Returns 0 done, 1 the lease is lost
-- Errors: LASTHIT for a damaged record of the shard
local shard = redis.pcall('HMGET', KEYS[1], 'epoch', 'owner')
if shard.err then return redis.error_reply('LASTHIT ' .. KEYS[1] .. ' is damaged: it is no hash') end
if shard[1] ~= ARGV[1] or shard[2] ~= ARGV[2] then return 1 end
local gone = {}
for i = 3, #ARGV do
  local record = redis.call('HGET', KEYS[2], ARGV[i])
  if record and string.match(record, '^%d+|%x+|1|%x+$') then gone[#gone + 1] = ARGV[i] end
end
-- `unpack` takes at most some 8,000 values.
for at = 1, #gone, 1000 do
  redis.call('HDEL', KEYS[2], unpack(gone, at, math.min(at + 999, #gone)))
end
return 0
