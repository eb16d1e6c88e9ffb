-- Reads changes of a workspace's status, and what caused each. Locks: nothing.
-- Takes: workspace_id. {condition} and {order} say which ones. A usage carries the very time of its change: with it the
-- join finds the partition by key. Returns: the changes.
SELECT c.id, c.changed_at, c.status_before, c.status_after, c.balance_after::text, c.minimum_balance::text,
       c.low_balance_threshold::text, c.entry, c.cause, c.cause_seq, c.cause_id, u.tool,
       coalesce(-u.cost, p.amount)::text
FROM taximeter.status_changes AS c
LEFT JOIN taximeter.usages AS u
  ON c.cause = 'usage' AND u.workspace_id = c.workspace_id AND u.seq = c.cause_seq AND u.recorded_at = c.changed_at
LEFT JOIN taximeter.payments AS p
  ON c.cause = 'payment' AND p.workspace_id = c.workspace_id AND p.payment_id = c.cause_id
WHERE c.workspace_id = %(workspace_id)s
  AND (%(before)s::bigint IS NULL OR c.id < %(before)s)
  AND (%(start)s::timestamptz IS NULL OR c.changed_at >= %(start)s)
  AND (%(end)s::timestamptz IS NULL OR c.changed_at < %(end)s)
  AND (%(status)s::text IS NULL OR c.status_after = %(status)s)
ORDER BY {order} LIMIT %(limit)s
