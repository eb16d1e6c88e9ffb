-- Reads the balance of a workspace at moments of the log. Locks: nothing.

-- name: at_edges
-- Takes: workspace_id, edges (quarter-hours).
-- One look-up for each edge, however many slots lie between two of them; and one partition for each, which the slot names.
-- Returns: time, entry and balance after the last usage before each edge.
WITH last AS MATERIALIZED (
    SELECT DISTINCT r.last_seq AS seq, r.slot FROM unnest(%(edges)s::timestamptz[]) AS e (moment)
    CROSS JOIN LATERAL (
        SELECT last_seq, slot FROM taximeter.usage_rollups
        WHERE workspace_id = %(workspace_id)s AND slot < e.moment
        ORDER BY slot DESC, last_seq DESC LIMIT 1
    ) AS r
)
SELECT u.recorded_at, u.entry, u.balance_after::text FROM last
JOIN taximeter.usages AS u ON u.workspace_id = %(workspace_id)s AND u.seq = last.seq
  AND u.recorded_at >= last.slot AND u.recorded_at < last.slot + interval '15 minutes'

-- name: spent_since
-- What was spent from a usage on, by the balances at its ends: see taximeter_db.queries.pace.
-- Takes: workspace_id, seq, payments (the number of the last payment that counts).
-- Returns: when that usage was recorded, the balance before it, and the payments after it.
SELECT u.recorded_at, (u.balance_after + u.cost)::text, (
    SELECT coalesce(sum(p.amount), 0)::numeric(27,12)::text FROM taximeter.payments AS p
    WHERE p.workspace_id = u.workspace_id AND p.seq > u.entry - u.seq AND p.seq <= %(payments)s
)
FROM taximeter.usages AS u WHERE u.workspace_id = %(workspace_id)s AND u.seq = %(seq)s
