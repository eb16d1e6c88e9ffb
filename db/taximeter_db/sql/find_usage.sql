-- Finds where in the log to look for a usage, through its idempotency key and without an index on event ids.
-- Takes: event_key, workspace_id, and slack_seconds that the clock may have been set back meanwhile.
-- A booking transaction starts at the key's booked_at and reads recorded_at later, under the workspace's lock; within a
-- workspace recorded_at never runs against seq. So a binary search by seq finds the first usage that was recorded at
-- booked_at or after (about 24 index look-ups in 10 million), and the usage itself is among those that follow soon.
-- OFFSET 0 keeps the middle a bare column: under row-level security only such a comparison leads into the index.
-- Locks: nothing. Returns: that seq and the key's time, or no row where there is no such key.
WITH RECURSIVE key AS (
    SELECT booked_at - make_interval(secs => %(slack_seconds)s) AS since
    FROM taximeter.usage_keys WHERE event_key = %(event_key)s AND workspace_id = %(workspace_id)s
), search (low, high) AS (
    SELECT 1::bigint, w.usage_count FROM taximeter.workspaces AS w, key WHERE w.workspace_id = %(workspace_id)s
    UNION ALL
    SELECT CASE WHEN probe.recorded_at < key.since THEN middle.seq + 1 ELSE s.low END,
           CASE WHEN probe.recorded_at < key.since THEN s.high ELSE middle.seq END
    FROM search AS s
    CROSS JOIN key
    CROSS JOIN LATERAL (SELECT (s.low + s.high) / 2 AS seq OFFSET 0) AS middle
    CROSS JOIN LATERAL (SELECT u.recorded_at FROM taximeter.usages AS u
                        WHERE u.workspace_id = %(workspace_id)s AND u.seq = middle.seq) AS probe
    WHERE s.low < s.high
)
SELECT max(s.low), min(key.since) FROM search AS s, key HAVING max(s.low) IS NOT NULL
