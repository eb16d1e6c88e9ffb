-- Gives workspaces a new data key, where the present one is still the one that the caller knows.
-- Takes: arrays of one length, sorted by workspace_id: ids, numbers of the keys known (0: none), new wrapped keys.
-- Locks: the rows of taximeter.workspaces, in the order given, as debit_workspaces.sql.
-- Returns: workspace_id and number of each key that was made.
WITH moved AS (
    UPDATE taximeter.workspaces AS w
    SET payload_key = (SELECT coalesce(max(k.number), 0) + 1 FROM taximeter.workspace_keys AS k
                       WHERE k.workspace_id = w.workspace_id)
    FROM unnest(%(workspace_ids)s, %(numbers)s, %(wrapped)s) AS v (workspace_id, number, wrapped)
    WHERE w.workspace_id = v.workspace_id AND w.payload_key = v.number
    RETURNING w.workspace_id, w.payload_key, v.wrapped
)
INSERT INTO taximeter.workspace_keys (workspace_id, number, wrapped, master)
SELECT workspace_id, payload_key, wrapped, %(master)s FROM moved
RETURNING workspace_id, number
