#!lua
-- Fences a gateway in a shard, for ever; one that never registered too.
--
-- Guarantee: only for the lease's owner; idempotent; its number and watermark stay. A damaged record becomes a good one, with
-- neither: nothing was appended by it since it was damaged, and nothing will be.
--
-- KEYS  1 shard, 2 gateways
-- ARGV  1 epoch, 2 owner, 3 incarnation, 4 server, for one that never registered
-- Returns {0, record}    done: number|watermark|fenced|server
--         {1}            the lease is lost
-- Refusals: LASTHIT for a damaged record of the shard
local shard = redis.pcall('HMGET', KEYS[1], 'epoch', 'owner')
if shard.err then return redis.error_reply('LASTHIT ' .. KEYS[1] .. ' is damaged: it is no hash') end
if shard[1] ~= ARGV[1] or shard[2] ~= ARGV[2] then return {1} end
local open, number, watermark, server = string.match(redis.call('HGET', KEYS[2], ARGV[3]) or '', '^((%d+)|(%x+)|)[01](|%x+)$')
if not open or #number > 19 or #watermark ~= 24 or #server ~= 33 then
  open, server = '0|000000000000000000000000|', '|' .. ARGV[4]
end
redis.call('HSET', KEYS[2], ARGV[3], open .. '1' .. server)
return {0, open .. '1' .. server}
