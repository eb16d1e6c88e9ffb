-- Write flags and balances, but never over something newer.
--
-- KEYS, two for each workspace, in one cluster slot:
--   taximeter:flag:{<workspace>}     hash: enabled ('1' or '0'), status, epoch, version, since (RFC 3339).
--                                    Written only when enabled or status changes, so that clients hear of flips alone.
--   taximeter:balance:{<workspace>}  hash: balance, minimum, low (decimal strings), epoch, version. Written every time.
-- ARGV, eight for each workspace: epoch, version, enabled, status, since, balance, minimum, low
--
-- (epoch, version) orders the writers: epoch grows with a restore or a rebuild, version with every booking.
-- Both are compared as strings of digits: Lua's numbers are exact only below 2^53.
--
-- Returns one number for each workspace: 0 written, flag unchanged; 1 written, flag changed; 2 refused, Redis has newer.
local function compare(a, b)
  if #a ~= #b then
    return #a < #b and -1 or 1
  end
  if a == b then
    return 0
  end
  return a < b and -1 or 1
end

local function older(epoch, version, stored_epoch, stored_version)
  if not stored_epoch or not stored_version then
    return false
  end
  local order = compare(epoch, stored_epoch)
  return order < 0 or (order == 0 and compare(version, stored_version) < 0)
end

local results = {}
for i = 1, #KEYS / 2 do
  local flag, balance = KEYS[2 * i - 1], KEYS[2 * i]
  local a = 8 * (i - 1)
  local epoch, version, enabled, status = ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4]
  local stored = redis.call('HMGET', flag, 'epoch', 'version', 'enabled', 'status')
  local newest = redis.call('HMGET', balance, 'epoch', 'version')
  if older(epoch, version, stored[1], stored[2]) or older(epoch, version, newest[1], newest[2]) then
    results[i] = 2
  else
    redis.call('HSET', balance, 'balance', ARGV[a + 6], 'minimum', ARGV[a + 7], 'low', ARGV[a + 8],
      'epoch', epoch, 'version', version)
    if stored[3] == enabled and stored[4] == status then
      results[i] = 0
    else
      redis.call('HSET', flag, 'enabled', enabled, 'status', status, 'epoch', epoch, 'version', version,
        'since', ARGV[a + 5])
      results[i] = 1
    end
  end
end
return results
