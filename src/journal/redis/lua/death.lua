#!lua
-- Appends a dead gateway's last entry to a room, and rings the shard's bell with number 0.
--
-- Guarantee: one atomic step; only for the lease's owner and a fenced gateway. A room that is not there has ended: its
-- sessions are gone, and nothing is written. Not idempotent.
--
-- KEYS  1 shard, 2 gateways, 3 active, 4 room, 5 state
-- ARGV  1 epoch, 2 owner, 3 incarnation, 4 bell channel, 5 name, 6 top, 7 entry
-- Returns 0 done, 1 the lease is lost, 2 the gateway is not fenced
-- Refusals: LASTHIT for a damaged record
local shard = redis.call('HMGET', KEYS[1], 'epoch', 'owner')
if shard[1] ~= ARGV[1] or shard[2] ~= ARGV[2] then return 1 end
local record = redis.call('HGET', KEYS[2], ARGV[3])
if not record then return 2 end
local _, watermark, fenced = string.match(record, '^(%d+)|(%x+)|([01])|%x+$')
if not fenced then return redis.error_reply('LASTHIT gateway record is damaged: ' .. record) end
if fenced == '0' then return 2 end
local top = redis.call('HGET', KEYS[5], 'top')
if not top then return 0 end

if top < ARGV[6] then top = ARGV[6] end
local id = redis.call('XADD', KEYS[4], '*', 'e', ARGV[7])
redis.call('HSET', KEYS[5], 'top', top, 'last', id)
redis.call('SADD', KEYS[3], ARGV[5])
local append = redis.call('HINCRBY', KEYS[1], 'append', 1)
redis.call('PUBLISH', ARGV[4], cmsgpack.pack({append, ARGV[3], 0, watermark, '', ARGV[5], id, ARGV[7]}))
return 0
