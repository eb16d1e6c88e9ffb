-- Adds a run of a workspace's usages to its rollups and returns nothing.
-- Takes: workspace_id, first and last seq of the run, which follows on what is rolled up already.
-- Locks: the rollups that it changes; the caller holds the workspace's row of rollup_progress, so nobody else does.
INSERT INTO taximeter.usage_rollups AS r
    (workspace_id, slot, tool, model, usages, cost, cost_max, first_seq, last_seq)
SELECT u.workspace_id, date_bin('15 minutes', u.recorded_at, 'epoch'), u.tool, coalesce(u.model, ''),
       count(*), sum(u.cost), max(u.cost), min(u.seq), max(u.seq)
FROM taximeter.usages AS u
WHERE u.workspace_id = %(workspace_id)s AND u.seq BETWEEN %(first)s AND %(last)s
GROUP BY 1, 2, 3, 4
ON CONFLICT (workspace_id, slot, tool, model) DO UPDATE
SET usages = r.usages + excluded.usages, cost = r.cost + excluded.cost,
    cost_max = greatest(r.cost_max, excluded.cost_max), last_seq = excluded.last_seq
