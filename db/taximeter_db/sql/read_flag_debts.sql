-- Reads the oldest flag debts. Returns: workspace, and the time at which its debt was last noted. Locks: nothing.
SELECT workspace_id, noted_at FROM taximeter.stale_flags ORDER BY noted_at LIMIT %s
