#!lua flags=allow-oom
-- Deletes a program that is kept, unless a pattern's rooms are decided by it.
--
-- KEYS  1 programs, 2 rules
-- ARGV  1 program
-- Returns 0 it is gone, 1 a pattern has it
for _, record in ipairs(redis.call('HVALS', KEYS[2])) do
  if string.match(record, '^%d+|(%x+)|') == ARGV[1] then return 1 end
end
redis.call('HDEL', KEYS[1], ARGV[1])
return 0
