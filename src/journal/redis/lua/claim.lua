#!lua
-- Makes a worker the owner of a shard.
--
-- Guarantee: it succeeds only if epoch and owner are those that the caller has seen, so one of many claims wins. The epoch
-- rises each time. The first claim on a new server stores what it finds there: the last commit, and the epoch as in doubt. If
-- an earlier owner had not released the shard, its events may have killed it: the same step counts a death in each active room
-- (rule C6), and in the first rooms that have a timer due; except in rooms with a damaged state, which fail when they are loaded. An
-- owner on another server counts as none: there every lease ended. A damaged list of due rooms stops nothing. KEYS cannot list the
-- states of these rooms, because they are known only inside the script; they share the hash tag. Where a cluster moves their slot to
-- another node, some may have left already: so all are read first, and the error ends the script. All checks come before the first
-- write.
--
-- A claim from another host than the shard's home changes the home, to the next number; the first claim makes a home. Either needs leave,
-- and the home that the caller has seen; it fences all gateways of the shard in the same step, so that none appends under the old home
-- (rules H1, H3). While a successor is named nobody of another host claims: as long as the name lasts by this server's clock, which may
-- be another one's than when it was given (rule H7).
--
-- KEYS  1 shard, 2 active, 3 due, 4 gateways
-- ARGV  1 epoch seen, 2 owner seen (both empty: no owner), 3 worker, 4 prefix of the rooms' state keys, 5 server, 6 the worker's wall
--       clock in ms, 7 how far that may be off this server's, in ms, 8 most due rooms, 9 the worker's host, 10 its address, 11 number
--       of the worker's timeline, 12 the last one that was given to a host, 13 1 if the home may change, 14 the home seen, or '', 15 how
--       long a name may last from now, in ms
-- Returns {0, epoch, number of the home} claimed, {1} another claim was faster, or the shard is another host's, {2, ms} refused: the worker's wall clock is so far ahead (behind, if
--         negative)
-- Errors: LASTHIT for a damaged record of the shard; what the server says where a room's state is out of reach
local function damaged(key, why) return redis.error_reply('LASTHIT ' .. key .. ' is damaged: ' .. why) end
local function count(text) return #text < 16 and string.find(text, '^%d+$') and tonumber(text) end
-- As the program reads and writes it: the number as it is written, the host in visible ASCII without |.
local function home_of(text)
  local number, host = string.match(text, '^(%d+)|([!-{}~]+)$')
  if not number or #number > 10 or #host > 128 or tonumber(number) > 4294967294 then return end
  if string.format('%.0f', tonumber(number)) == number then return tonumber(number), host end
end

local shard = redis.pcall('HMGET', KEYS[1], 'epoch', 'owner', 'server', 'commit', 'owned', 'home', 'append', 'next')
if shard.err then return damaged(KEYS[1], 'it is no hash') end
local epoch, commit = shard[1] or '0', shard[4] or '0'
if not count(epoch) or not count(commit) then return damaged(KEYS[1], 'epoch or commit is no number') end
if shard[2] and (not shard[1] or #shard[2] ~= 32 or string.find(shard[2], '[^%da-f]')) then
  return damaged(KEYS[1], 'owner is no incarnation, or has no epoch')
end
-- Before the comparison: whoever cannot read the home could not say what it has seen either.
local number, host = nil, ''
if shard[6] then
  number, host = home_of(shard[6])
  if not number then return damaged(KEYS[1], 'home ' .. shard[6]) end
end
if shard[2] then
  if count(epoch) ~= tonumber(ARGV[1]) or shard[2] ~= ARGV[2] then return {1} end
elseif ARGV[2] ~= '' then
  return {1}
end
local moves, records = host ~= ARGV[9], {}
if moves then
  if ARGV[13] ~= '1' or (shard[6] or '') ~= ARGV[14] then return {1} end
  -- Where a shard has no home yet, stamps of several hosts may be in it: those of the last one are the highest.
  if number == 4294967294 then return damaged(KEYS[1], 'home ' .. shard[6] .. ' has the last number') end
  number = number and number + 1 or tonumber(ARGV[11])
  if not shard[6] and (shard[7] or '0') ~= '0' and ARGV[11] ~= ARGV[12] then number = tonumber(ARGV[12]) + 1 end
  records = redis.pcall('HGETALL', KEYS[4])
  if records.err then return damaged(KEYS[4], 'it is no hash') end
end
local active = redis.pcall('SMEMBERS', KEYS[2])
if active.err then return damaged(KEYS[2], 'it is no set') end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local till, named = string.match(shard[8] or '', '^(%d+)|([^|]+)|')
if named and #till < 16 and named ~= ARGV[9] and math.min(tonumber(till), now + tonumber(ARGV[15])) > now then return {1} end
local off = tonumber(ARGV[6]) - now
if math.abs(off) > tonumber(ARGV[7]) then return {2, string.format('%.0f', off)} end

local keys, seqs, deaths = {}, {}, {}
if shard[2] and shard[2] ~= ARGV[3] and shard[5] == ARGV[5] then
  local due = redis.pcall('ZRANGE', KEYS[3], '-inf', string.format('%.0f', now), 'BYSCORE', 'LIMIT', 0, ARGV[8])
  local counted = {}
  for i = 1, #active do counted[active[i]] = true end
  for i = 1, #due do counted[due[i]] = true end
  for name in pairs(counted) do
    local state = redis.pcall('HMGET', ARGV[4] .. name, 'seq', 'deaths_at', 'deaths')
    if state.err and not string.find(state.err, '^WRONGTYPE') then return state end
    local before = state[1] and (state[1] ~= state[2] and 0 or count(state[3] or ''))
    if before then
      local n = #keys + 1
      keys[n], seqs[n], deaths[n] = ARGV[4] .. name, state[1], before + 1
    end
  end
end

if shard[3] ~= ARGV[5] then
  redis.call('HSET', KEYS[1], 'server', ARGV[5], 'found', commit, 'doubt', epoch)
end
redis.call('HSET', KEYS[1], 'epoch', count(epoch) + 1, 'owner', ARGV[3], 'owned', ARGV[5])
if shard[8] then redis.call('HDEL', KEYS[1], 'next') end
if moves or ARGV[10] ~= '' then redis.call('HSET', KEYS[1], 'address', ARGV[10]) end
if moves then
  redis.call('HSET', KEYS[1], 'home', string.format('%.0f|%s', number, ARGV[9]))
  for i = 1, #records, 2 do
    -- A damaged record stays: whoever has it appends nothing, and is fenced by the owner.
    local open, server = string.match(records[i + 1], '^(%d+|%x+|)0(|%x+)$')
    if open then redis.call('HSET', KEYS[4], records[i], open .. '1' .. server) end
  end
end
for i = 1, #keys do redis.call('HSET', keys[i], 'deaths_at', seqs[i], 'deaths', deaths[i]) end
return {0, count(epoch) + 1, string.format('%.0f', number)}
