-- How far the rollups of workspaces follow their logs.

-- name: behind
-- Takes: limit. Locks: nothing. Returns: the ids of workspaces whose rollups lag, those that lag most first.
SELECT w.workspace_id FROM taximeter.workspaces AS w
LEFT JOIN taximeter.rollup_progress AS p USING (workspace_id)
WHERE w.usage_count > coalesce(least(p.seq, p.labels_seq), 0)
ORDER BY w.usage_count - coalesce(least(p.seq, p.labels_seq), 0) DESC LIMIT %(limit)s

-- name: lock
-- Takes: workspace_id. Locks: its row of rollup_progress, so that one transaction at a time rolls up a workspace.
-- Returns: how far its rollups and those of labels reach, its last usage, and since when usages may bear labels; no row for
-- a workspace that was never seen.
SELECT p.seq, p.labels_seq, w.usage_count, (SELECT labels_since - interval '1 day' FROM taximeter.ledger_state) FROM taximeter.rollup_progress AS p JOIN taximeter.workspaces AS w USING (workspace_id)
WHERE p.workspace_id = %(workspace_id)s FOR UPDATE OF p

-- name: progress
-- Takes: workspace_id. Locks: nothing. Returns: how far all its rollups reach, and its last usage.
SELECT coalesce(least(p.seq, p.labels_seq), 0), w.usage_count FROM taximeter.workspaces AS w
LEFT JOIN taximeter.rollup_progress AS p USING (workspace_id) WHERE w.workspace_id = %(workspace_id)s
