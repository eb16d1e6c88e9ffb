-- Write flags and balances, but never over something newer.
--
-- KEYS, two for each workspace, in one cluster slot:
--   taximeter:flag:{<workspace>}     hash: enabled ('1' or '0'), status, epoch, version, since (RFC 3339).
--                                    Written only when enabled or status changes, so that clients hear of flips alone.
--   taximeter:balance:{<workspace>}  hash: balance, minimum, low (decimal strings), epoch, version. Written every time.
-- ARGV[1]  MessagePack, one flat list: first what the workspaces share (epoch, since, minimum, low: strings in a list), then
--          for each version, status, balance (strings) and false, or such a list of its own. One argument, because each costs
--          Redis and the client more than all that is in it; and every string that is not sent need not be made.
--
-- (epoch, version) orders the writers: epoch grows with a restore or a rebuild, version with every booking.
-- Both are compared as strings of digits: Lua's numbers are exact only below 2^53.
-- The same position with another balance is refused, too: one version has one balance, so the database was restored.
-- What no writer of ours has left stands in nobody's way: a key of another type, a position that is no number.
--
-- Returns a string with one digit for each workspace: 0 written, flag unchanged; 1 written, flag changed; 2 refused, Redis
-- has newer, or another balance of the same version. A string, because clients read a list number by number.
local call = redis.call

local function before(text, other)
  -- PostgreSQL counts to 19 digits, and no ledger gets there.
  return (#text < #other or (#text == #other and text < other)) and #other < 19 and string.find(other, '^%d+$')
end

local function older(epoch, version, stored_epoch, stored_version)
  if not stored_epoch or not stored_version then
    return false
  end
  if epoch ~= stored_epoch then
    return before(epoch, stored_epoch)
  end
  return before(version, stored_version)
end

local function fields(key, ...)
  local found = redis.pcall('HMGET', key, ...)
  if not found.err then
    return found
  end
  if not string.find(found.err, 'WRONGTYPE', 1, true) then
    error(found.err)
  end
  call('DEL', key)
  return {}
end

local given, results = cmsgpack.unpack(ARGV[1]), {}
local shared = given[1]
-- An empty cache, as a rebuild finds it, shows at the first workspace; two questions then stand for two of each workspace.
local nothing = #KEYS > 2 and call('EXISTS', KEYS[1], KEYS[2]) == 0 and call('EXISTS', unpack(KEYS)) == 0
for i = 1, #KEYS / 2 do
  local flag, balance = KEYS[2 * i - 1], KEYS[2 * i]
  local version, status, amount, own = given[4 * i - 2], given[4 * i - 1], given[4 * i], given[4 * i + 1] or shared
  local epoch, since, minimum, low = own[1], own[2], own[3], own[4]
  local enabled = status == 'insufficient' and '0' or '1'
  local stored = nothing and {} or fields(flag, 'enabled', 'status', 'epoch', 'version')
  local newest = nothing and {} or fields(balance, 'epoch', 'version', 'minimum', 'low', 'balance')
  if older(epoch, version, stored[3], stored[4])
    or older(epoch, version, newest[1], newest[2])
    or (version == newest[2] and epoch == newest[1] and amount ~= newest[5])
  then
    results[i] = '2'
  else
    if newest[1] == epoch and newest[3] == minimum and newest[4] == low then
      call('HSET', balance, 'balance', amount, 'version', version)
    else
      call('HSET', balance, 'balance', amount, 'minimum', minimum, 'low', low, 'epoch', epoch, 'version', version)
    end
    if stored[1] == enabled and stored[2] == status then
      results[i] = '0'
    else
      call('HSET', flag, 'enabled', enabled, 'status', status, 'epoch', epoch, 'version', version, 'since', since)
      results[i] = '1'
    end
  end
end
return table.concat(results)
