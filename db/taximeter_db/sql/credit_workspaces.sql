-- Credits a batch's workspaces with their payments, each once; the counterpart of debit_workspaces.sql.
-- Takes: four arrays of one length, sorted by workspace_id, each workspace once. digest is over its new payments.
-- Locks, returns: as debit_workspaces.sql.
UPDATE taximeter.workspaces AS w
SET balance = w.balance + v.amount,
    payment_total = w.payment_total + v.amount,
    payment_count = w.payment_count + v.payments,
    version = w.version + 1,
    chain = taximeter.chain_link(w.chain, v.digest, w.usage_count, w.payment_count + v.payments,
                                 greatest(statement_timestamp(), w.updated_at + interval '1 microsecond')),
    updated_at = greatest(statement_timestamp(), w.updated_at + interval '1 microsecond')
FROM unnest(%(workspace_ids)s, %(amounts)s, %(payments)s, %(digests)s) AS v (workspace_id, amount, payments, digest)
WHERE w.workspace_id = v.workspace_id
RETURNING w.workspace_id, w.balance::text, w.minimum_balance::text || ' ' || w.low_balance_threshold::text,
          w.usage_count, w.payment_count, w.version,
          (SELECT epoch FROM taximeter.ledger_state), timestamptz_send(w.updated_at),
          w.chain
