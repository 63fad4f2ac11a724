#!lua flags=allow-oom
-- Fences a gateway in a shard at its own request: everything of its sessions is in the journal.
--
-- Guarantee: idempotent. Number and watermark stay. A gateway that is not registered stays unknown.
--
-- KEYS  1 gateways
-- ARGV  1 incarnation
-- Returns 0
-- Errors: LASTHIT for a damaged record
local record = redis.call('HGET', KEYS[1], ARGV[1])
if not record then return 0 end
local open, server = string.match(record, '^(%d+|%x+|)[01](|%x+)$')
if not open then return redis.error_reply('LASTHIT gateway record is damaged: ' .. record) end
redis.call('HSET', KEYS[1], ARGV[1], open .. '1' .. server)
return 0
