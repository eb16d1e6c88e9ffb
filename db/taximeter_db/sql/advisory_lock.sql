-- Takes an advisory lock for the session, and waits for it. Locks: that number, until it is unlocked or the session ends.
SELECT pg_advisory_lock(%s)
