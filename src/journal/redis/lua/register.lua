#!lua
-- Makes a gateway's incarnation known to a shard, as this server knows it.
--
-- Guarantee: one atomic step, idempotent; a fenced one stays fenced, and one of which flushes are missing is fenced. When
-- commits are missing that it has heard of, or all that was known of it, every room of the shard begins a new era, once
-- for each server. The bell rings when an earlier server knew it, without a new count of appends.
--
-- KEYS  1 shard, 2 gateways, 3 rooms, then the asked rooms' states
-- ARGV  1 incarnation, 2 server, 3 by how much the count of eras jumps, 4 its last flush, 5 the last commit it has heard of,
--       6 what the rooms' state keys begin with, 7 bell channel, 8 the server that it was registered with
-- Returns {record, rooms that began a new era, last commit, {era, seq, top, ...}}; the record is number|watermark|fenced|server
-- Refusals: LASTHIT for a damaged record
local record = redis.call('HGET', KEYS[2], ARGV[1])
local shard = redis.call('HMGET', KEYS[1], 'append', 'commit', 'renewed', 'server', 'found')
local number, watermark, fenced, server = '0', '000000000000000000000000', '0', ''
if record then
  number, watermark, fenced, server = string.match(record, '^(%d+)|(%x+)|([01])|(%x+)$')
  if not number then return redis.error_reply('LASTHIT gateway record is damaged: ' .. record) end
end
local flush = tonumber(ARGV[4])
if flush > tonumber(number) then fenced = '1' end
local now = number .. '|' .. watermark .. '|' .. fenced .. '|' .. ARGV[2]
if now ~= record then redis.call('HSET', KEYS[2], ARGV[1], now) end

local renewed = 0
local found = tonumber(shard[4] == ARGV[2] and shard[5] or shard[2] or '0')
local lost = (not record and flush > 0) or (ARGV[8] ~= ARGV[2] and tonumber(ARGV[5]) > found)
if lost and shard[3] ~= ARGV[2] then
  shard[2] = redis.call('HINCRBY', KEYS[1], 'commit', 1)
  redis.call('HSET', KEYS[1], 'renewed', ARGV[2], 'commit_epoch', '0', 'server', ARGV[2], 'found', shard[2])
  redis.call('HDEL', KEYS[1], 'doubt')
  redis.call('HINCRBY', KEYS[1], 'eras', ARGV[3])
  for _, name in ipairs(redis.call('SMEMBERS', KEYS[3])) do
    local state = ARGV[6] .. name
    if redis.call('HGET', state, 'seq') ~= '0' then renewed = renewed + 1 end
    redis.call('HSET', state, 'era', redis.call('HINCRBY', KEYS[1], 'eras', 1))
  end
end
if server ~= ARGV[2] and (record or flush > 0) then
  redis.call('PUBLISH', ARGV[7], cmsgpack.pack({tonumber(shard[1] or '0'), ARGV[1], tonumber(number), watermark, ''}))
end

local heads = {}
for i = 4, #KEYS do
  local state = redis.call('HMGET', KEYS[i], 'era', 'seq', 'top')
  heads[3 * i - 11] = state[1] or '0'
  heads[3 * i - 10] = state[2] or '0'
  heads[3 * i - 9] = state[3] or '000000000000000000000000'
end
return {now, renewed, shard[2] or '0', heads}
