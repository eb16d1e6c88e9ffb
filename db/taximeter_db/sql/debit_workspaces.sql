-- Debits a batch's workspaces, each once: locks the row and moves balance and counters in one row version.
-- Takes: four arrays of one length, sorted by workspace_id, each workspace once.
-- Locks: the rows of taximeter.workspaces, in the order given, as long as the plan is a nested loop
--        (see connect.booking_connection). No statement locks them beforehand: Citus takes only this form.
-- Returns: one row for each workspace that exists; the caller must compare the count, since a workspace that is missing
--        debits nothing, silently. recorded_at is read after the lock, so that it never runs against seq.
UPDATE taximeter.workspaces AS w
SET balance = w.balance - v.cost,
    usage_cost = w.usage_cost + v.cost,
    usage_count = w.usage_count + v.usages,
    duplicate_count = w.duplicate_count + v.duplicates,
    version = w.version + 1,
    updated_at = clock_timestamp()
FROM unnest(%(workspace_ids)s, %(costs)s, %(usages)s, %(duplicates)s) AS v (workspace_id, cost, usages, duplicates)
WHERE w.workspace_id = v.workspace_id
RETURNING w.workspace_id, w.balance::text, w.minimum_balance::text, w.low_balance_threshold::text,
          w.usage_count, w.payment_count, w.version,
          (SELECT epoch FROM taximeter.ledger_state),
          (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
