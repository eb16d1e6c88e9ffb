-- Debits a batch's workspaces, each once: locks the row and moves balance, counters and chain in one row version.
-- Takes: five arrays of one length, sorted by workspace_id, each workspace once. digest is over its new usages.
-- Locks: the rows of taximeter.workspaces, in the order given, as long as the plan is a nested loop
--        (see connect.booking_connection). No statement locks them beforehand: Citus takes only this form.
-- Returns: one row for each workspace that exists; the caller must compare the count, since a workspace that is missing
--        debits nothing, silently. The time is the batch's recorded_at: within a workspace later than all before it,
--        whatever the clock does, so that it never runs against seq and names the batch. Last come the chain's new link,
--        the number of the data key that payloads must be encrypted with, and whether the workspace has budgets.
UPDATE taximeter.workspaces AS w
SET balance = w.balance - v.cost,
    usage_cost = w.usage_cost + v.cost,
    usage_count = w.usage_count + v.usages,
    duplicate_count = w.duplicate_count + v.duplicates,
    version = w.version + 1,
    chain = CASE WHEN v.usages = 0 THEN w.chain
                 ELSE taximeter.chain_link(w.chain, v.digest, w.usage_count + v.usages, w.payment_count,
                                           greatest(statement_timestamp(), w.updated_at + interval '1 microsecond')) END,
    updated_at = greatest(statement_timestamp(), w.updated_at + interval '1 microsecond')
FROM unnest(%(workspace_ids)s, %(costs)s, %(usages)s, %(duplicates)s, %(digests)s)
     AS v (workspace_id, cost, usages, duplicates, digest)
WHERE w.workspace_id = v.workspace_id
RETURNING w.workspace_id, w.balance::text, w.minimum_balance::text || ' ' || w.low_balance_threshold::text,
          w.usage_count, w.payment_count, w.version,
          (SELECT epoch FROM taximeter.ledger_state), timestamptz_send(w.updated_at),
          w.chain, w.payload_key, w.budgets IS NOT NULL
