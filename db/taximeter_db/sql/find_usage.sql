-- Finds a usage by its event id, through its idempotency key and without an index on the log.
-- Takes: event_key, workspace_id, event_id, and slack_seconds that the clock may have been set back meanwhile.
-- A booking transaction starts at the key's booked_at and reads recorded_at later, under the workspace's lock; within a
-- workspace recorded_at never runs against seq. So a binary search by seq finds the first usage that was recorded at
-- booked_at or after (about 24 index look-ups in 10 million), and the usage itself is within the minutes that follow.
-- Locks: nothing. Returns: its seq, or no row.
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
    CROSS JOIN LATERAL (SELECT (s.low + s.high) / 2 AS seq) AS middle
    CROSS JOIN LATERAL (SELECT u.recorded_at FROM taximeter.usages AS u
                        WHERE u.workspace_id = %(workspace_id)s AND u.seq = middle.seq) AS probe
    WHERE s.low < s.high
)
SELECT u.seq
FROM taximeter.usages AS u, key
WHERE u.workspace_id = %(workspace_id)s
  AND u.seq >= (SELECT max(low) FROM search)
  AND u.recorded_at >= key.since AND u.recorded_at < key.since + interval '15 minutes'
  AND u.event_id = %(event_id)s
ORDER BY u.seq
LIMIT 1
