#!lua flags=allow-oom
-- Names the host that is to be a shard's next home, or takes the name away.
--
-- Guarantee: only for the owner of the lease. By this server's clock the name runs out by itself (rule H7).
--
-- KEYS  1 shard
-- ARGV  1 epoch, 2 owner, 3 the host (empty: nobody), 4 its URL, 5 for how many ms
-- Returns 0 done; 1 the lease is lost
-- Errors: LASTHIT for a damaged record of the shard
local shard = redis.pcall('HMGET', KEYS[1], 'epoch', 'owner')
if shard.err then return redis.error_reply('LASTHIT ' .. KEYS[1] .. ' is damaged: it is no hash') end
if shard[1] ~= ARGV[1] or shard[2] ~= ARGV[2] then return 1 end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], 'next')
else
  local time = redis.call('TIME')
  local till = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) + tonumber(ARGV[5])
  redis.call('HSET', KEYS[1], 'next', string.format('%.0f|%s|%s', till, ARGV[3], ARGV[4]))
end
return 0
