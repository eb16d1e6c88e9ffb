-- Set one key. A script, because a command would be refused where the server's memory is full.
--
-- KEYS[1]  taximeter:flags:ready or taximeter:place, see marks.py
-- ARGV[1]  its value
redis.call('SET', KEYS[1], ARGV[1])
