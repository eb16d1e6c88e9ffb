-- Give back what a dead consumer had taken, in the old order, and strike it off.
--
-- KEYS[1]  taximeter:consumers (see take.lua)
-- KEYS[2]  taximeter:consumer:<id>
-- KEYS[3], KEYS[4], …  pairs of <queue>, <queue>:processing:<id>
-- ARGV[1]  consumer id
-- ARGV[2]  '1': even if it still counts as alive (a consumer gives back its own)
--
-- Returns the number of messages given back; or -1 when the consumer lives.
if ARGV[2] ~= '1' and redis.call('EXISTS', KEYS[2]) == 1 then
  return -1
end
local moved = 0
for i = 3, #KEYS, 2 do
  -- The newest is on the left and goes back first; so the oldest ends at the right, where it is taken next.
  while redis.call('LMOVE', KEYS[i + 1], KEYS[i], 'LEFT', 'RIGHT') do
    moved = moved + 1
  end
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
return moved
