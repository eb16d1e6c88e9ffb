-- Delete the flag of a workspace that the database does not know (it was restored to an earlier day).
--
-- KEYS[1]  taximeter:flag:{<workspace>}      (see flags.lua)
-- KEYS[2]  taximeter:balance:{<workspace>}
-- ARGV[1]  the epoch of a rebuild that has written every known workspace
--
-- Returns 1 when it was deleted, 0 when it is of this epoch or newer.
local epoch = redis.call('HGET', KEYS[2], 'epoch')
if epoch and (#epoch > #ARGV[1] or (#epoch == #ARGV[1] and epoch >= ARGV[1])) then
  return 0
end
redis.call('DEL', KEYS[1], KEYS[2])
return 1
