-- PostgreSQL's own time, and what it waits for. Locks: nothing.

-- name: now
-- Returns: microseconds since the Unix epoch, at the moment of execution.
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint

-- name: waits_for
-- Takes: a backend's process id. Returns: the kind and name of what it waits for, or null; no row where it has ended.
SELECT wait_event_type || ': ' || wait_event FROM pg_stat_activity WHERE pid = %s AND state <> 'idle'
