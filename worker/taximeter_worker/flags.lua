-- Write flags and balances, but never over something newer.
--
-- KEYS, two for each workspace, in one cluster slot:
--   taximeter:flag:{<workspace>}     hash: enabled ('1' or '0'), status, epoch, version, since (RFC 3339).
--                                    Written only when enabled or status changes, so that clients hear of flips alone.
--   taximeter:balance:{<workspace>}  hash: balance, minimum, low (decimal strings), epoch, version. Written every time.
-- ARGV[1]  MessagePack: for each workspace a list of strings: epoch, version, enabled, status, since, balance, minimum, low.
--          One argument, because each costs Redis and the client more than all that is in it.
--
-- (epoch, version) orders the writers: epoch grows with a restore or a rebuild, version with every booking.
-- Both are compared as strings of digits: Lua's numbers are exact only below 2^53.
-- The same position with another balance is refused, too: one version has one balance, so the database was restored.
--
-- Returns a string with one digit for each workspace: 0 written, flag unchanged; 1 written, flag changed; 2 refused, Redis
-- has newer, or another balance of the same version. A string, because clients read a list number by number.
local call = redis.call

local function older(epoch, version, stored_epoch, stored_version)
  if not stored_epoch or not stored_version then
    return false
  end
  if epoch ~= stored_epoch then
    return #epoch < #stored_epoch or (#epoch == #stored_epoch and epoch < stored_epoch)
  end
  return #version < #stored_version or (#version == #stored_version and version < stored_version)
end

local states, results = cmsgpack.unpack(ARGV[1]), {}
-- An empty cache, as a rebuild finds it, shows at the first workspace; two questions then stand for two of each workspace.
local nothing = #states > 1 and call('EXISTS', KEYS[1], KEYS[2]) == 0 and call('EXISTS', unpack(KEYS)) == 0
for i, state in ipairs(states) do
  local flag, balance = KEYS[2 * i - 1], KEYS[2 * i]
  local epoch, version, enabled, status = state[1], state[2], state[3], state[4]
  local stored = nothing and {} or call('HMGET', flag, 'enabled', 'status', 'epoch', 'version')
  local newest = nothing and {} or call('HMGET', balance, 'epoch', 'version', 'minimum', 'low', 'balance')
  if older(epoch, version, stored[3], stored[4])
    or older(epoch, version, newest[1], newest[2])
    or (version == newest[2] and epoch == newest[1] and state[6] ~= newest[5])
  then
    results[i] = '2'
  else
    if newest[1] == epoch and newest[3] == state[7] and newest[4] == state[8] then
      call('HSET', balance, 'balance', state[6], 'version', version)
    else
      call('HSET', balance, 'balance', state[6], 'minimum', state[7], 'low', state[8], 'epoch', epoch, 'version', version)
    end
    if stored[1] == enabled and stored[2] == status then
      results[i] = '0'
    else
      call('HSET', flag, 'enabled', enabled, 'status', status, 'epoch', epoch, 'version', version, 'since', state[5])
      results[i] = '1'
    end
  end
end
return table.concat(results)
