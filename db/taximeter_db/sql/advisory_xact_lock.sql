-- Takes an advisory lock for the transaction, and waits for it. Locks: that number, until the transaction ends.
SELECT pg_advisory_xact_lock(%s)
