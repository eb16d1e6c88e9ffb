-- Reads a workspace's balance, minimum and low-balance threshold. Locks: nothing.
SELECT balance::text, minimum_balance::text, low_balance_threshold::text FROM taximeter.workspaces
WHERE workspace_id = %s
