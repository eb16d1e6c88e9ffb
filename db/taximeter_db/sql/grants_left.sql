-- Credit that expires; see taximeter_db.ledger.grants.

-- name: lock
-- Takes: workspace_id. Locks: the workspace's row, so that nothing is booked until the transaction ends.
-- Returns: its balance and how many payments it has.
SELECT balance::text, payment_count FROM taximeter.workspaces WHERE workspace_id = %(workspace_id)s FOR UPDATE

-- name: stands
-- Takes: workspace_id. Locks: nothing. Returns: as `lock`.
SELECT balance::text, payment_count FROM taximeter.workspaces WHERE workspace_id = %(workspace_id)s

-- name: movements
-- Takes: workspace_id, last (the last payment that counts). Locks: nothing.
-- Returns: the payments from the first grant on, in order: id, kind, amount, balance after it, the payment that it concerns; of a
-- grant also until when, its priority, and whether it is settled.
SELECT p.payment_id, p.kind, p.amount::text, p.balance_after::text, p.transaction ->> 'payment_id',
       g.expires_at, g.priority, g.settled_at IS NOT NULL
FROM taximeter.payments AS p LEFT JOIN taximeter.grants AS g USING (workspace_id, payment_id)
WHERE p.workspace_id = %(workspace_id)s AND p.seq <= %(last)s
  AND p.seq >= (SELECT min(f.seq) FROM taximeter.grants AS h JOIN taximeter.payments AS f USING (workspace_id, payment_id)
                WHERE h.workspace_id = %(workspace_id)s)
ORDER BY p.seq

-- name: due
-- Takes: limit. Locks: nothing. Returns: the workspaces with a grant that has expired and is not settled.
SELECT DISTINCT workspace_id FROM taximeter.grants
WHERE settled_at IS NULL AND expires_at <= clock_timestamp() ORDER BY workspace_id LIMIT %(limit)s

-- name: due_in
-- Takes: workspace_id. Locks: nothing. Returns: the payment ids of its grants that have expired and are not settled.
SELECT payment_id FROM taximeter.grants
WHERE workspace_id = %(workspace_id)s AND settled_at IS NULL AND expires_at <= clock_timestamp()
ORDER BY expires_at, payment_id

-- name: settle
-- Takes: workspace_id, payment_ids. Locks: these grants.
UPDATE taximeter.grants SET settled_at = clock_timestamp()
WHERE workspace_id = %(workspace_id)s AND payment_id = ANY(%(payment_ids)s) AND settled_at IS NULL
