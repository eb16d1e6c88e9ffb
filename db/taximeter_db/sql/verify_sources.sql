-- The rows of one chunk of `taximeter verify`: what stands where verify_chunk.sql and verify_keys.sql have braces.

-- name: range_usages
taximeter.usages AS u
WHERE u.workspace_id >= %(first)s AND u.workspace_id < %(end)s AND u.seq > %(seq_after)s AND u.seq <= %(seq_upto)s

-- name: range_payments
taximeter.payments AS p
WHERE p.workspace_id >= %(first)s AND p.workspace_id < %(end)s AND p.seq > %(payment_after)s AND p.seq <= %(payment_upto)s

-- name: range_workspaces
taximeter.workspaces WHERE workspace_id >= %(first)s AND workspace_id < %(end)s

-- name: since_usages
unnest(%(ids)s::text[], %(start_usages)s::bigint[]) AS s (workspace_id, usages)
CROSS JOIN LATERAL (SELECT * FROM taximeter.usages AS l
                    WHERE l.workspace_id = s.workspace_id AND l.seq > s.usages) AS u
WHERE true

-- name: since_payments
unnest(%(ids)s::text[], %(start_payments)s::bigint[]) AS s (workspace_id, payments)
CROSS JOIN LATERAL (SELECT * FROM taximeter.payments AS l
                    WHERE l.workspace_id = s.workspace_id AND l.seq > s.payments) AS p
WHERE true

-- name: since_workspaces
taximeter.workspaces WHERE workspace_id = ANY(%(ids)s)

-- name: boundary
-- The next row from a number on that bears a link and is not the last: only behind it can the chain be taken up again.
SELECT seq, entry - seq, balance_after, link FROM taximeter.usages
WHERE workspace_id = %(workspace_id)s AND seq >= %(target)s AND seq < %(usages)s AND link IS NOT NULL
ORDER BY seq LIMIT 1

-- name: detached
-- Returns: the slices of the log, by their beginning, of which one of the two partitions is not attached.
SELECT s.starts_at, s.ends_at
FROM taximeter.usage_partitions AS s
CROSS JOIN LATERAL (
    SELECT count(*) AS attached
    FROM pg_catalog.pg_inherits AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent IN ('taximeter.usages'::regclass, 'taximeter.usage_payloads'::regclass) AND NOT i.inhdetachpending
      -- by its bounds and not by its name: the demonstration's first slice has a name of its own
      AND pg_get_expr(c.relpartbound, c.oid) = format('FOR VALUES FROM (%L) TO (%L)', s.starts_at, s.ends_at)
) AS p
WHERE p.attached < 2 ORDER BY s.starts_at

-- name: planning
-- A booking connection allows one kind of plan alone, which is not for this; and a chunk's sort must stay in memory.
SELECT set_config(name, value, true)
FROM (VALUES ('work_mem', '256MB'), ('jit', 'off'), ('max_parallel_workers_per_gather', '0'), ('enable_hashjoin', 'on'),
             ('enable_mergejoin', 'on'), ('enable_seqscan', 'on'), ('enable_bitmapscan', 'on')) AS s (name, value)
