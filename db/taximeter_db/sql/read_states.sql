-- Reads the state of workspaces, as a flag writer needs it. Locks: nothing.
SELECT w.workspace_id, w.balance::text, w.minimum_balance::text || ' ' || w.low_balance_threshold::text,
       w.usage_count, w.payment_count, w.version,
       (SELECT epoch FROM taximeter.ledger_state), timestamptz_send(w.updated_at),
       coalesce(w.budgets, '')
FROM taximeter.workspaces AS w
WHERE w.workspace_id = ANY(%(workspace_ids)s::text[])
