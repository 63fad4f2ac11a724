#!lua
-- Registers a gateway's incarnation in a shard, with this server.
--
-- Guarantee: one atomic, idempotent step. A fenced gateway stays fenced. If flushes of the gateway are missing, they are lost
-- or the gateway was forgotten: it is fenced. If commits are missing that it has heard of, all rooms of the shard begin a new
-- era, once for each server. Only the shard's shift of eras jumps, so a room with a damaged state has a new era when it is
-- repaired, too, and the step takes no longer where there are many rooms. If an earlier server knew the gateway, or an
-- earlier turn of it, the bell rings, without a new count of appends. Only a gateway of the shard's home registers (rule H2). All checks come before the first write.
--
-- KEYS  1 shard, 2 gateways, 3 rooms, then the states of the rooms that the gateway asks for
-- ARGV  1 incarnation, 2 server, 3 size of a jump of the eras' shift, 4 the gateway's last confirmed flush, 5 the last commit
--       that it has heard of, 6 channel of the bell, 7 server of its last registration, 8 number of the home that it knows, or 0,
--       9 its host
-- Returns {'', home or '', address}   the home is another, or there is none: nothing was written
--         {record, count of rooms that began a new era (0 in a shard without a commit), last commit, {era, seq, top, ...}, number of
--         the home}; the record is number|watermark|fenced|server; era 0 means that the room does not exist, or that its state is damaged
-- Errors: LASTHIT for a damaged record of the shard
local function damaged(key, why) return redis.error_reply('LASTHIT ' .. key .. ' is damaged: ' .. why) end
local function count(text) return #text < 16 and string.find(text, '^%d+$') and tonumber(text) end
-- As the program reads and writes it: the number as it is written, the host in visible ASCII without |.
local function home_of(text)
  local number, host = string.match(text, '^(%d+)|([!-{}~]+)$')
  if not number or #number > 10 or #host > 128 or tonumber(number) > 4294967294 then return end
  if string.format('%.0f', tonumber(number)) == number then return tonumber(number), host end
end

local record = redis.pcall('HGET', KEYS[2], ARGV[1])
if record and record.err then return damaged(KEYS[2], 'it is no hash') end
local number, watermark, fenced, server = '0', '000000000000000000000000', '0', ''
if record then
  number, watermark, fenced, server = string.match(record, '^(%d+)|(%x+)|([01])|(%x+)$')
  if not number or #watermark ~= 24 then return damaged(KEYS[2], 'gateway record ' .. record) end
end
local shard = redis.pcall('HMGET', KEYS[1], 'append', 'commit', 'renewed', 'server', 'found', 'shift', 'home', 'address')
if shard.err then return damaged(KEYS[1], 'it is no hash') end
if not shard[7] then return {'', '', ''} end
local home, host = home_of(shard[7])
if not home then return damaged(KEYS[1], 'home ' .. shard[7]) end
home = string.format('%.0f', home)
if host ~= ARGV[9] or (ARGV[8] ~= '0' and ARGV[8] ~= home) then return {'', shard[7], shard[8] or ''} end
local append, commit, shift = count(shard[1] or '0'), count(shard[2] or '0'), count(shard[6] or '0')
local found = commit
if shard[4] == ARGV[2] then found = count(shard[5] or '') end
if not append or not commit or not found or not shift then
  return damaged(KEYS[1], 'append, commit, found or shift is no number')
end
local renewed = 0
local lost = ARGV[7] ~= ARGV[2] and tonumber(ARGV[5]) > found and shard[3] ~= ARGV[2]
if lost then
  renewed = redis.pcall('SCARD', KEYS[3])
  if type(renewed) == 'table' then return damaged(KEYS[3], 'it is no set') end
  -- Before the first commit no room has verdicts that could be missing.
  if commit == 0 then renewed = 0 end
end

local flush = tonumber(ARGV[4])
if flush > tonumber(number) then fenced = '1' end
local now = number .. '|' .. watermark .. '|' .. fenced .. '|' .. ARGV[2]
if now ~= record then redis.call('HSET', KEYS[2], ARGV[1], now) end
if lost then
  commit, shift = commit + 1, shift + tonumber(ARGV[3])
  redis.call('HSET', KEYS[1], 'commit', commit, 'renewed', ARGV[2], 'commit_epoch', '0', 'server', ARGV[2], 'found', commit,
    'shift', string.format('%.0f', shift))
  redis.call('HDEL', KEYS[1], 'doubt')
end
if server ~= ARGV[2] and (record or flush > 0 or ARGV[5] ~= '0') then
  redis.call('PUBLISH', ARGV[6], cmsgpack.pack({append, ARGV[1], tonumber(number), watermark, ''}))
end

local heads = {}
for i = 4, #KEYS do
  local state = redis.pcall('HMGET', KEYS[i], 'era', 'seq', 'top')
  local era, seq, top = count(state[1] or ''), state[2] or '', state[3] or ''
  local sound = era and count(seq) and #top == 24 and string.find(top, '^%x+$')
  heads[3 * i - 11] = sound and string.format('%.0f', era + shift) or '0'
  heads[3 * i - 10] = sound and seq or '0'
  heads[3 * i - 9] = sound and top or '000000000000000000000000'
end
return {now, renewed, commit, heads, home}
