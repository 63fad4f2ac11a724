#!lua flags=allow-oom
-- Drops failed events of a pattern: some, or all. With the last one the pattern leaves the shard's list.
--
-- Guarantee: one atomic step. To drop all works for damaged keys, too.
--
-- KEYS  1 failed, 2 that of the pattern
-- ARGV  1 pattern, then the IDs of those to drop; none: all
-- Returns how many were dropped
-- Errors: LASTHIT for damaged keys
local count = redis.pcall('XLEN', KEYS[2])
if type(count) == 'table' then
  if ARGV[2] then return redis.error_reply('LASTHIT ' .. KEYS[2] .. ' is damaged: it is no stream') end
  count = 0
end
local dropped = count
if ARGV[2] then dropped = redis.call('XDEL', KEYS[2], unpack(ARGV, 2)) end
if dropped == count then
  redis.call('UNLINK', KEYS[2])
  redis.pcall('HDEL', KEYS[1], ARGV[1])
end
return dropped
