-- Register a consumer. Alive before it is registered: another must never see a registered one without a sign of life.
--
-- KEYS[1]  taximeter:consumers (see take.lua)
-- KEYS[2]  taximeter:consumer:<id>
-- ARGV[1]  consumer id
-- ARGV[2]  milliseconds until the consumer counts as dead
-- ARGV[3]  host:process queue,queue,…; whoever gives back what it had taken may have other queues
redis.call('SET', KEYS[2], '1', 'PX', ARGV[2])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
