#!lua
-- Keeps a program, and makes it the one that the rooms of a pattern are decided by.
--
-- Guarantee: one atomic step. The text is kept under its name, whatever becomes of the rest; a damaged one is replaced. The numbers of
-- pushes rise, also across a server that came back without the last ones: they are milliseconds of its clock, or one more than the last.
-- A damaged record of a pattern counts as none. The workers are told when the record changes.
--
-- KEYS  1 programs, 2 rules, 3 workers
-- ARGV  1 pattern, 2 program, 3 version, 4 name, 5 text, 6 by whom: start (a worker has it in its file), hand, or again (rooms that
--       refused it try again), 7 most programs, 8 prefix of push channels, 9 what to tell the workers
-- Returns {0, record}  this program decides, now or before
--         {1, record}  another one stays: this one has another name, or its version is lower (for a start: not higher)
--         {2}          too many programs are kept
--         {3}          nobody has started with a program for this pattern, so there is nothing to replace
-- A record is push|program|version|ms|name.
local record = redis.call('HGET', KEYS[2], ARGV[1])
local push, program, version, ms, name = string.match(record or '', '^(%d+)|(%x+)|(%d+)|(%d+)|([%w._-]+)$')
if push and (#push > 15 or #program ~= 32 or #version > 10 or tonumber(version) > 4294967295 or #ms > 15) then
  push, program, version, name = nil, nil, nil, nil
end
if not push and ARGV[6] ~= 'start' then return {3} end
if redis.call('HEXISTS', KEYS[1], ARGV[2]) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[7]) then
  if push and ARGV[6] == 'start' then return {1, record} end
  return {2}
end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[5])
if program == ARGV[2] and ARGV[6] ~= 'again' then return {0, record} end
local raised = tonumber(ARGV[3]) - tonumber(version or '0')
if push and (name ~= ARGV[4] or raised < 0 or raised == 0 and ARGV[6] == 'start') then return {1, record} end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local counted = redis.call('HGET', KEYS[2], '') or ''
local last = #counted <= 15 and string.find(counted, '^%d+$') and tonumber(counted) or 0
if push then last = math.max(last, tonumber(push)) end
local number = string.format('%.0f', math.max(now, last + 1))
record = number .. '|' .. ARGV[2] .. '|' .. ARGV[3] .. '|' .. string.format('%.0f', now) .. '|' .. ARGV[4]
redis.call('HSET', KEYS[2], ARGV[1], record, '', number)
for _, worker in ipairs(redis.call('HKEYS', KEYS[3])) do
  redis.call('PUBLISH', ARGV[8] .. worker, ARGV[9])
end
return {0, record}
