-- Reads a workspace's payments after an entry of its log, and which of them a repricing posted. Locks: nothing.
SELECT p.entry, p.balance_after::text, p.amount::text, p.recorded_at, w.payment_id IS NOT NULL
FROM taximeter.payments AS p LEFT JOIN taximeter.repriced_workspaces AS w USING (workspace_id, payment_id)
WHERE p.workspace_id = %s AND p.entry > %s ORDER BY p.entry
