-- Reads usages of one workspace for pages. {columns} are those that a page shows. Locks: nothing.

-- name: between
-- Takes: workspace_id, first, last, limit. The bounds on seq lead into the primary key; the order is the key's, so the
-- page is read and nothing else. Returns: the usages, in order.
SELECT {columns} FROM taximeter.usages AS u
WHERE u.workspace_id = %(workspace_id)s AND u.seq BETWEEN %(first)s AND %(last)s
ORDER BY u.seq LIMIT %(limit)s

-- name: pick
-- Takes: workspace_id, seqs. Returns: the usages, in no order.
SELECT {columns} FROM taximeter.usages AS u WHERE u.workspace_id = %(workspace_id)s AND u.seq = ANY(%(seqs)s)

-- name: window
-- Looks for an event id within a window, so that no plan reads a partition.
-- Takes: workspace_id, event_id, first, last. Returns one row: its seq, and when the window ends.
SELECT max(seq) FILTER (WHERE event_id = %(event_id)s), max(recorded_at) FROM taximeter.usages
WHERE workspace_id = %(workspace_id)s AND seq BETWEEN %(first)s AND %(last)s
