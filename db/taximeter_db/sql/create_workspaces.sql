-- Creates the workspaces of a batch that were never seen, with the limits given.
-- Takes: an array of workspace ids, sorted. Locks: the new rows, in the order given; runs in a transaction of its own.
INSERT INTO taximeter.workspaces (workspace_id, minimum_balance, low_balance_threshold)
SELECT workspace_id, %(minimum)s, %(low)s FROM unnest(%(workspace_ids)s::text[]) AS g (workspace_id)
ON CONFLICT DO NOTHING
