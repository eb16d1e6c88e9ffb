-- What one service token is for, by its hash, before a transaction may see any workspace's rows: a function of the
-- schema (migration 0023). Locks: nothing.
-- Takes: hash. Returns: workspace ('*': every one), name, whether it may only read; a row for each workspace.
SELECT workspace_id, name, read_only FROM taximeter.service_token(%(hash)s)
