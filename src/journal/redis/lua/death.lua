#!lua
-- Appends the last entry of a dead gateway to a room, and rings the shard's bell with number 0.
--
-- Guarantee: one atomic step, only for the owner of the lease and a fenced gateway. Nothing is written to a room that does not
-- exist: it has ended, and its sessions with it. A gateway with a damaged record counts as fenced, because it can append
-- nothing. Not idempotent: if the entry is written twice, whoever resolves the room drops the second one as stale. All checks
-- come before the first write.
--
-- KEYS  1 shard, 2 gateways, 3 active, 4 room, 5 state
-- ARGV  1 epoch, 2 owner, 3 incarnation, 4 channel of the bell, 5 name of the room, 6 top, 7 entry
-- Returns 0 appended, 1 the lease is lost, 2 the gateway is not fenced
-- Errors: LASTHIT for a damaged record of the shard, DAMAGED for one of the room
local function damaged(key, why) return redis.error_reply('LASTHIT ' .. key .. ' is damaged: ' .. why) end
local function is(key, wanted)
  local type = redis.call('TYPE', key).ok
  return type == wanted or type == 'none'
end

local shard = redis.pcall('HMGET', KEYS[1], 'epoch', 'owner', 'append')
if shard.err then return damaged(KEYS[1], 'it is no hash') end
if shard[1] ~= ARGV[1] or shard[2] ~= ARGV[2] then return 1 end
local append = shard[3] or '0'
if #append > 15 or not string.find(append, '^%d+$') then return damaged(KEYS[1], 'append is no number') end
local record = redis.pcall('HGET', KEYS[2], ARGV[3])
if not record then return 2 end
if record.err then return damaged(KEYS[2], 'it is no hash') end
local watermark, fenced = string.match(record, '^%d+|(%x+)|([01])|%x+$')
if fenced == '0' then return 2 end
if not is(KEYS[3], 'set') then return damaged(KEYS[3], 'it is no set') end
local state = redis.pcall('HMGET', KEYS[5], 'era', 'top')
if state.err then return redis.error_reply('DAMAGED ' .. KEYS[5] .. ' is no hash') end
local top = state[2]
if not state[1] and not top then return 0 end
if not state[1] or not top or #top ~= 24 or string.find(top, '%X') then
  return redis.error_reply('DAMAGED ' .. KEYS[5] .. ' has no era, or a top that is no moment')
end
if not is(KEYS[4], 'stream') then return redis.error_reply('DAMAGED ' .. KEYS[4] .. ' is no stream') end

if top < ARGV[6] then top = ARGV[6] end
-- The first write may fail: a stream that has used its last ID takes no entry.
local id = redis.pcall('XADD', KEYS[4], '*', 'e', ARGV[7])
if id.err then return redis.error_reply('DAMAGED ' .. KEYS[4] .. ' takes no entry: ' .. id.err) end
redis.call('HSET', KEYS[5], 'top', top, 'last', id)
redis.call('SADD', KEYS[3], ARGV[5])
append = tonumber(append) + 1
redis.call('HSET', KEYS[1], 'append', append)
redis.call('PUBLISH', ARGV[4], cmsgpack.pack({append, ARGV[3], 0, watermark or '000000000000000000000000', '', ARGV[5], id, ARGV[7]}))
return 0
