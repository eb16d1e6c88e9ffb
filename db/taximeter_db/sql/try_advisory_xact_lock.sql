-- Takes an advisory lock for the transaction unless another session has it.
-- Locks: that number, until the transaction ends. Returns: whether it was taken.
SELECT pg_try_advisory_xact_lock(%s)
