-- Delete the flag of a workspace that the database does not know (it was restored to an earlier day).
--
-- KEYS[1]  taximeter:flag:{<workspace>}      (see flags.lua)
-- KEYS[2]  taximeter:balance:{<workspace>}
-- ARGV[1]  the epoch of a rebuild that has written every known workspace
--
-- Returns 1 when it was deleted, 0 when it is of this epoch or newer.
for _, key in ipairs(KEYS) do
  local epoch = redis.pcall('HGET', key, 'epoch')
  -- What no writer of ours has left has no epoch, see scan.lua.
  if type(epoch) == 'string' and #epoch < 19 and string.find(epoch, '^%d+$')
    and (#epoch > #ARGV[1] or (#epoch == #ARGV[1] and epoch >= ARGV[1]))
  then
    return 0
  end
end
redis.call('DEL', KEYS[1], KEYS[2])
return 1
