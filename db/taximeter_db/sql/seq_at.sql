-- Finds a workspace's first usage that was recorded at a moment or after it, by binary search over seq.
-- Takes: workspace_id, moment. Locks: nothing.
-- Returns one row: its seq, the last seq + 1 where there is none; no row for an unknown workspace.
WITH RECURSIVE search (low, high) AS (
    SELECT 1::bigint, w.usage_count + 1 FROM taximeter.workspaces AS w WHERE w.workspace_id = %(workspace_id)s
    UNION ALL
    SELECT CASE WHEN probe.recorded_at < %(moment)s THEN middle.seq + 1 ELSE s.low END,
           CASE WHEN probe.recorded_at < %(moment)s THEN s.high ELSE middle.seq END
    FROM search AS s
    CROSS JOIN LATERAL (SELECT (s.low + s.high) / 2 AS seq OFFSET 0) AS middle
    CROSS JOIN LATERAL (SELECT u.recorded_at FROM taximeter.usages AS u
                        WHERE u.workspace_id = %(workspace_id)s AND u.seq = middle.seq) AS probe
    WHERE s.low < s.high
)
SELECT max(low) FROM search HAVING max(low) IS NOT NULL
