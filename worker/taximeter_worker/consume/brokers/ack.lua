-- Forget the oldest taken messages of one consumer: they are booked.
--
-- KEYS[1]  taximeter:consumers (see take.lua)
-- KEYS[2], KEYS[3], …  <queue>:processing:<id>
-- ARGV[1]  consumer id
-- ARGV[2], ARGV[3], …  how many messages to forget from each list, in the order of the keys
--
-- Returns 1; or 0 when the consumer was declared dead meanwhile: its messages are another's now and stay.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return 0
end
for i = 2, #KEYS do
  local count = tonumber(ARGV[i])
  if count > 0 then
    redis.call('LTRIM', KEYS[i], 0, -(count + 1))
  end
end
return 1
