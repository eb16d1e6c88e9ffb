-- Look at a page of the flags: which epoch is the highest, and, if asked to, drop those older than an epoch.
--
-- For a single node only: the keys are those that SCAN finds here, so they cannot be declared. Sent to and fro they would
-- cost ten times what looking at them costs.
--
-- ARGV[1]  SCAN's cursor
-- ARGV[2]  how many keys SCAN looks at
-- ARGV[3]  what comes before {<workspace>} in a flag's key (see flags.lua)
-- ARGV[4]  the same of a balance's key
-- ARGV[5]  the epoch of a rebuild that has written every known workspace; empty: drop nothing
--
-- Returns the next cursor, how many flags were met, the highest epoch (digits; empty where there is none), and how many workspaces were dropped: the
-- database does not know them (it was restored to an earlier day).
local call = redis.call

-- Epochs are compared as strings of digits, see flags.lua; none is older than any.
local function older(epoch, other)
  return #epoch < #other or (#epoch == #other and epoch < other)
end

-- What no writer of ours has left, such as a key of another type, has no epoch.
local function epoch_of(key)
  local found = redis.pcall('HGET', key, 'epoch')
  return type(found) == 'string' and #found < 19 and string.match(found, '^%d+$') or ''
end

local flag_prefix, balance_prefix, floor = ARGV[3], ARGV[4], ARGV[5]
local page = call('SCAN', ARGV[1], 'MATCH', flag_prefix .. '{*', 'COUNT', ARGV[2])
local highest, dropped = '', 0
for _, flag in ipairs(page[2]) do
  local balance = balance_prefix .. string.sub(flag, #flag_prefix + 1)
  local epoch, of_flag = epoch_of(balance), epoch_of(flag)
  if older(epoch, of_flag) then
    epoch = of_flag
  end
  if older(highest, epoch) then
    highest = epoch
  end
  if older(epoch, floor) and call('DEL', flag, balance) > 0 then
    dropped = dropped + 1
  end
end
return {page[1], #page[2], highest, dropped}
