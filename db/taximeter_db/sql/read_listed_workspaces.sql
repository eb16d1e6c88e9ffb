-- Reads balance and flag of some workspaces. Locks: nothing.
SELECT workspace_id, balance, balance >= minimum_balance FROM taximeter.workspaces WHERE workspace_id = ANY(%s)
