#!lua
-- Fences a gateway in a shard for good, even one that never registered.
--
-- Guarantee: idempotent, only for the owner of the lease. Number and watermark of the gateway stay. A damaged record is
-- replaced by one with number and watermark 0: the gateway could append nothing since the damage, and cannot now.
--
-- KEYS  1 shard, 2 gateways
-- ARGV  1 epoch, 2 owner, 3 incarnation, 4 server, for a gateway without a good record
-- Returns {0, record}    fenced: number|watermark|fenced|server
--         {1}            the lease is lost
-- Errors: LASTHIT for a damaged record of the shard
local shard = redis.pcall('HMGET', KEYS[1], 'epoch', 'owner')
if shard.err then return redis.error_reply('LASTHIT ' .. KEYS[1] .. ' is damaged: it is no hash') end
if shard[1] ~= ARGV[1] or shard[2] ~= ARGV[2] then return {1} end
local open, number, watermark, server = string.match(redis.call('HGET', KEYS[2], ARGV[3]) or '', '^((%d+)|(%x+)|)[01](|%x+)$')
if not open or #number > 19 or #watermark ~= 24 or #server ~= 33 then
  open, server = '0|000000000000000000000000|', '|' .. ARGV[4]
end
redis.call('HSET', KEYS[2], ARGV[3], open .. '1' .. server)
return {0, open .. '1' .. server}
