#!lua flags=allow-oom
-- Stores the heartbeat of a worker or a host, a worker's patterns, or what a process says of itself. Deletes expired and unreadable entries, and returns the
-- others.
--
-- Guarantee: only this server's clock counts. The owner of an unreadable entry writes it again.
--
-- KEYS  1 workers, or hosts, or patterns, or procs
-- ARGV  1 worker, process or timeline, 2 milliseconds until it expires (0: it expires now), 3 text: the shards that the worker owns,
--       separated by commas, or its patterns, one a line, or a process's record; empty for a host
-- Returns {worker, process or timeline, text, ...}
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
