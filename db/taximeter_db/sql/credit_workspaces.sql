-- Credits a batch's workspaces with their payments, each once; the counterpart of debit_workspaces.sql.
-- Takes: three arrays of one length, sorted by workspace_id, each workspace once.
-- Locks, returns: as debit_workspaces.sql.
UPDATE taximeter.workspaces AS w
SET balance = w.balance + v.amount,
    payment_total = w.payment_total + v.amount,
    payment_count = w.payment_count + v.payments,
    version = w.version + 1,
    updated_at = clock_timestamp()
FROM unnest(%(workspace_ids)s, %(amounts)s, %(payments)s) AS v (workspace_id, amount, payments)
WHERE w.workspace_id = v.workspace_id
RETURNING w.workspace_id, w.balance::text, w.minimum_balance::text, w.low_balance_threshold::text,
          w.usage_count, w.payment_count, w.version,
          (SELECT epoch FROM taximeter.ledger_state),
          (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
