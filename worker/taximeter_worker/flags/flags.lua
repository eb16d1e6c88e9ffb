-- Write flags and balances, but never over something newer.
--
-- KEYS, two for each workspace, in one cluster slot:
--   taximeter:flag:{<workspace>}     hash: enabled ('1' or '0'), status, epoch, version, since (RFC 3339).
--                                    Written only when enabled or status changes, so that clients hear of flips alone; or
--                                    when hard budgets are used up or restored: budgets (JSON, see taximeter_db.budgets;
--                                    absent: it never had a budget) and budgets_at, the epoch and version it is of.
--   taximeter:balance:{<workspace>}  hash: balance, minimum, low (decimal strings), epoch, version. Written every time.
-- ARGV[1]  MessagePack, one flat list: first what the workspaces share (epoch, since, minimum, low: strings in a list; and a
--          boolean: memory is short, so add nothing for enabled workspaces of which nothing is here), then
--          for each version, status, balance (strings) and false, or such a list of its own. One argument, because each costs
--          Redis and the client more than all that is in it; and every string that is not sent need not be made.
--
-- ARGV[2]  only where usages of the batch name holds. MessagePack, a map: a workspace's place in KEYS (1 for the first two) ->
--          a list of ids of holds. They are taken out of
--            taximeter:holds:{<workspace>} and taximeter:holds:due:{<workspace>}    (see holds.lua of the SDK)
--          in the same step in which the balance that has paid for them is written, so nothing counts twice or not at all. Of
--          a workspace of which Redis has newer, that newer balance has paid for them.
--
-- ARGV[3]  only where something is said of budgets. MessagePack, a map: a workspace's place in KEYS -> the text of `budgets`,
--          '[]' where none is used up; empty where it never had one: then nothing is written unless something is there. It is ordered by budgets_at alone: most writers say nothing of budgets, so a newer balance does not mean that Redis
--          has the newer text.
--
-- (epoch, version) orders the writers: epoch grows with a restore or a rebuild, version with every booking.
-- Both are compared as strings of digits: Lua's numbers are exact only below 2^53.
-- The same position with another balance is refused, too: one version has one balance, so the database was restored.
-- What no writer of ours has left stands in nobody's way: a key of another type, a position that is not a number.
--
-- Returns a string with one digit for each workspace: 0 written, flag unchanged; 1 written, flag changed; 2 refused, Redis
-- has newer, or another balance of the same version; 3 left out, memory is short. A string, because clients read a list number by number.
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

local function settle(flag, ids)
  local suffix = string.sub(flag, #'taximeter:flag:' + 1)
  local holds, due = 'taximeter:holds:' .. suffix, 'taximeter:holds:due:' .. suffix
  local sum = 0
  for first = 1, #ids, 1000 do
    local last = math.min(#ids, first + 999)
    for _, held in ipairs(call('HMGET', holds, unpack(ids, first, last))) do
      sum = sum + (tonumber(held or 0) or 0)
    end
    call('HDEL', holds, unpack(ids, first, last))
    call('ZREM', due, unpack(ids, first, last))
  end
  if call('EXISTS', due) == 0 then
    call('DEL', holds)
  elseif sum > 0 then
    call('HINCRBY', holds, '', string.format('-%.0f', sum))
  end
end

-- Whether the text of a flag's budgets became another one.
local function say_budgets(flag, text, epoch, version)
  local stored = fields(flag, 'budgets', 'budgets_at')
  local stored_epoch, stored_version = string.match(stored[2] or '', '^(%d+):(%d+)$')
  if older(epoch, version, stored_epoch, stored_version) or (text == '' and not stored[2]) then
    return false
  end
  if text ~= stored[1] or epoch ~= stored_epoch or version ~= stored_version then
    -- the same text, too: an older writer that is still to come must find a newer position
    call('HSET', flag, 'budgets', text, 'budgets_at', epoch .. ':' .. version)
  end
  return text ~= stored[1]
end

local settled = ARGV[2] and cmsgpack.unpack(ARGV[2])
local budgets = ARGV[3] and cmsgpack.unpack(ARGV[3])
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
  elseif shared[5] and enabled == '1' and not (stored[1] or stored[2] or newest[1] or newest[2])
    and not (budgets and #(budgets[i] or '') > 2)
  then
    results[i] = '3'
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
  if budgets and budgets[i] and results[i] ~= '3' and not (nothing and budgets[i] == '')
    and say_budgets(flag, budgets[i], epoch, version) and results[i] == '0'
  then
    results[i] = '1'
  end
  if settled and settled[i] then
    settle(flag, settled[i])
  end
end
return table.concat(results)
