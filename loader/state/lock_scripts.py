"""The scripts that take, renew and release a lock, see `lock`."""

# KEYS: the lock, the fence. ARGV: part, token, milliseconds, holder, name, tokens of holders known to be dead. Returns
# "held", its part, the holder in the way, and the milliseconds that it still has; or "renewed"; or "taken", and the
# token and name of each run to shut out; or "foreign", and the key and entry that no loader has written. A single
# holder renews it without writing, which a full Redis allows; the key's own expiry is then the lock's.
TAKE = """
if redis.replicate_commands then redis.replicate_commands() end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function refused(reply, key)
  if type(reply) ~= 'table' or not reply['err'] then return nil end
  return string.match(reply['err'], 'WRONGTYPE') and {'foreign', key} or reply
end
local function entry(text)
  local good, value = pcall(cjson.decode, text)
  if not good or type(value) ~= 'table' or type(value['token']) ~= 'string' then return nil end
  local ends = value['until']
  if type(ends) ~= 'number' or not (ends >= 0 and ends < 9007199254740992) then return nil end
  return value
end
local shard, shards = string.match(ARGV[1], '(%d+)/(%d+)')
local held, before = redis.pcall('HGETALL', KEYS[1]), redis.pcall('HGET', KEYS[2], ARGV[2])
local wrong = refused(held, KEYS[1]) or refused(before, KEYS[2])
if wrong then return wrong end
local alone = #held == 2 and redis.call('PTTL', KEYS[1]) or 0
local dead, live, outcome = {}, {[ARGV[2]] = true}, {'taken'}
for i = 6, #ARGV do dead[ARGV[i]] = true end
for i = 1, #held, 2 do
  local other = entry(held[i + 1])
  if not other or not string.match(held[i], '^%d+/%d+$') then return {'foreign', KEYS[1], held[i]} end
  local left = math.max(other['until'] - now, alone)
  if other['token'] == ARGV[2] and held[i] == ARGV[1] then
    outcome = {'renewed'}
    if #held == 2 then
      if before ~= ARGV[5] then redis.pcall('HSET', KEYS[2], ARGV[2], ARGV[5]) end
      redis.call('PEXPIRE', KEYS[1], ARGV[3])
      return outcome
    end
  elseif left <= 0 or dead[other['token']] then
    redis.call('HDEL', KEYS[1], held[i])
  elseif other['token'] ~= ARGV[2] then
    local theirs, of = string.match(held[i], '(%d+)/(%d+)')
    if of ~= shards or theirs == shard then return {'held', held[i], held[i + 1], left} end
    live[other['token']] = true
    if alone > 0 then
      other['until'] = now + left
      redis.call('HSET', KEYS[1], held[i], cjson.encode(other))
    end
  end
end
if outcome[1] == 'taken' then
  if before and before ~= ARGV[5] then
    outcome[#outcome + 1] = ARGV[2] .. ':before'
    outcome[#outcome + 1] = before
  end
  local listed = redis.call('HGETALL', KEYS[2])
  for i = 1, #listed, 2 do
    if not string.match(listed[i + 1], '^loader%-%x+$') then return {'foreign', KEYS[2], listed[i]} end
    if not live[listed[i]] then
      outcome[#outcome + 1] = listed[i]
      outcome[#outcome + 1] = listed[i + 1]
    end
  end
end
local own = cjson.decode(ARGV[4])
own['until'] = now + ARGV[3]
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(own))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('HSET', KEYS[2], ARGV[2], ARGV[5])
return outcome
"""
# KEYS: the lock, the fence. ARGV: part, token, tokens to remove from the fence. Foreign content stays. Returns 1 if
# that run held it.
DROP = """
local held = 0
local text = redis.pcall('HGET', KEYS[1], ARGV[1])
if type(text) == 'table' and not string.match(text['err'], 'WRONGTYPE') then return text end
local good, own = pcall(cjson.decode, text)
if good and type(own) == 'table' and own['token'] == ARGV[2] then held = redis.call('HDEL', KEYS[1], ARGV[1]) end
local gone = #ARGV > 2 and redis.pcall('HDEL', KEYS[2], unpack(ARGV, 3)) or 0
if type(gone) == 'table' and not string.match(gone['err'], 'WRONGTYPE') then return gone end
return held
"""
