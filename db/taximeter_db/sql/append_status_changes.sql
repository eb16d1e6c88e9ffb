-- Appends to the log of status changes, in the order given.
-- Takes: arrays of one length, one element a change. Locks: nothing; the caller holds the workspaces' rows, which is what
--        puts a workspace's changes in order.
INSERT INTO taximeter.status_changes (workspace_id, changed_at, status_before, status_after, balance_after,
                                      minimum_balance, low_balance_threshold, entry, cause, cause_seq, cause_id)
SELECT * FROM unnest(%(workspace_ids)s::text[], %(times)s::timestamptz[], %(befores)s::text[], %(afters)s::text[],
                     %(balances)s::numeric[], %(minimums)s::numeric[], %(lows)s::numeric[], %(entries)s::bigint[],
                     %(causes)s::text[], %(cause_seqs)s::bigint[], %(cause_ids)s::text[])
