-- Reads the next usages of a workspace as they were booked, with what the newest repricing made of them. Locks: nothing.
-- Takes: the selection of recost_workspaces.sql; all: those outside of it, too, told apart by the column `wanted`.
SELECT u.seq, u.entry, u.recorded_at, u.occurred_at, u.cost::text, u.balance_after::text, u.tool, u.provider, u.model,
       u.quantities::text,
       u.occurred_at >= %(since)s AND (%(until)s::timestamptz IS NULL OR u.occurred_at < %(until)s)
  AND (%(tool)s::text IS NULL OR u.tool = %(tool)s) AND abs(u.price_version) < %(below)s AS wanted,
       (SELECT r.new_cost::text FROM taximeter.repriced_usages AS r
        WHERE r.workspace_id = u.workspace_id AND r.seq = u.seq ORDER BY r.repricing DESC LIMIT 1)
FROM taximeter.usages AS u
WHERE u.workspace_id = %(workspace)s AND u.seq > %(after)s AND u.recorded_at >= %(floor)s
  AND (%(all)s OR (u.occurred_at >= %(since)s AND (%(until)s::timestamptz IS NULL OR u.occurred_at < %(until)s)
  AND (%(tool)s::text IS NULL OR u.tool = %(tool)s) AND abs(u.price_version) < %(below)s))
ORDER BY u.seq LIMIT %(limit)s
