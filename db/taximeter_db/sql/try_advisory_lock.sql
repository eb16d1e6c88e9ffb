-- Takes an advisory lock for the session unless another session has it.
-- Locks: that number, until it is unlocked or the session ends. Returns: whether it was taken.
SELECT pg_try_advisory_lock(%s)
