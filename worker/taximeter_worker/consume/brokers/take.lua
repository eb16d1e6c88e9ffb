-- Take messages for one consumer and prove that it lives.
--
-- KEYS[1]  taximeter:consumers          hash: consumer id -> host:process queue,queue,…; being in it is the right to take and to ack
-- KEYS[2]  taximeter:consumer:<id>      string with a time to live: this consumer lives
-- KEYS[3], KEYS[4], …  pairs, in the order in which they are read, of
--          <queue>                      list: producers LPUSH, so the oldest message is on the right
--          <queue>:processing:<id>      list: taken and not acknowledged, oldest on the right
-- ARGV[1]  consumer id
-- ARGV[2]  milliseconds until the consumer counts as dead
-- ARGV[3]  messages to take at most from each queue (0: none, only prove life)
-- ARGV[4]  bytes to take at most in all; the message that crosses the line is still taken
--
-- Returns a list of messages per queue, oldest first; or false when the consumer was declared dead meanwhile.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return false
end
redis.call('SET', KEYS[2], '1', 'PX', ARGV[2])
local messages_max = tonumber(ARGV[3])
local bytes_left = tonumber(ARGV[4])
local taken = {}
for i = 3, #KEYS, 2 do
  local messages = {}
  while #messages < messages_max and bytes_left > 0 do
    local message = redis.call('LMOVE', KEYS[i], KEYS[i + 1], 'RIGHT', 'LEFT')
    if not message then
      break
    end
    messages[#messages + 1] = message
    bytes_left = bytes_left - #message
  end
  taken[#taken + 1] = messages
end
return taken
