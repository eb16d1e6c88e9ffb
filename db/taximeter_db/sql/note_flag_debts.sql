-- Notes that the flags of workspaces are owed to Redis; a debt that stands already becomes newer.
-- Runs in the transaction that changes a balance or a limit. Takes: ids, sorted, each once. Locks: the debts, in that order.
INSERT INTO taximeter.stale_flags (workspace_id) SELECT unnest(%s::text[])
ON CONFLICT (workspace_id) DO UPDATE SET noted_at = clock_timestamp()
