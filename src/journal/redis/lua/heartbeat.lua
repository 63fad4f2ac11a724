#!lua flags=allow-oom
-- Takes a worker's (or a host's) heartbeat, or what a worker says of its rooms, forgets those whose heartbeats ran out, and
-- tells who lives.
--
-- Guarantee: by this server's clock alone. A record that cannot be read is as good as none: who lives writes it anew.
--
-- KEYS  1 workers, or hosts, or patterns
-- ARGV  1 worker, or timeline, 2 milliseconds that it is good for, 3 what it says: the shards that it owns, with commas between,
--       or its patterns, a line each
-- Returns {who, what it says, ...}
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f|%s', now + tonumber(ARGV[2]), ARGV[3]))
local all = redis.call('HGETALL', KEYS[1])
local reply = {}
for i = 1, #all, 2 do
  local expires, said = string.match(all[i + 1], '^(%d+)|(.*)$')
  local name = all[i]
  local readable = expires and #expires < 16 and string.find(name, '^%x+$') and (#name == 32) == (#ARGV[1] == 32)
  if readable and tonumber(expires) > now then
    reply[#reply + 1] = all[i]
    reply[#reply + 1] = said
  else
    redis.call('HDEL', KEYS[1], all[i])
  end
end
return reply
