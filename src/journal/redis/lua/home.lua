#!lua flags=no-writes
-- Says where a shard is at home, and to whom it is being handed over.
--
-- Guarantee: one consistent view. Only this server's clock says whether a successor's name has run out.
--
-- KEYS  1 shard
-- Returns {home or '', address}                                                       nobody is named
--         {home or '', address, milliseconds until the name runs out or 0, host, URL}
-- Errors: LASTHIT for a damaged record of the shard
local function damaged(why) return redis.error_reply('LASTHIT ' .. KEYS[1] .. ' is damaged: ' .. why) end

local shard = redis.pcall('HMGET', KEYS[1], 'home', 'address', 'next')
if shard.err then return damaged('it is no hash') end
-- As the program reads and writes it: the number as it is written, the host in visible ASCII without |.
local function home_of(text)
  local number, host = string.match(text, '^(%d+)|([!-{}~]+)$')
  if not number or #number > 10 or #host > 128 or tonumber(number) > 4294967294 then return end
  if string.format('%.0f', tonumber(number)) == number then return tonumber(number), host end
end
local function visible(text) return not string.find(text, '[^\33-\126]') end
if shard[1] and not home_of(shard[1]) then return damaged('home ' .. shard[1]) end
local answer = {shard[1] or '', shard[2] or ''}
if shard[3] then
  local till, host, url = string.match(shard[3], '^(%d+)|([^|]+)|([^|]*)$')
  if not till or not visible(shard[3]) or #till > 15 then return damaged('next ' .. shard[3]) end
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  answer[3], answer[4], answer[5] = string.format('%.0f', math.max(0, tonumber(till) - now)), host, url
end
return answer
