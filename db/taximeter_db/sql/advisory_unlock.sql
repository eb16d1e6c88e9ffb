-- Gives a session's advisory lock back. Returns: whether the session had it.
SELECT pg_advisory_unlock(%s)
