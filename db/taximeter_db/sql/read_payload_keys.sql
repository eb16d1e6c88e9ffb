-- Reads the data keys that new payloads of workspaces are to be encrypted with. Locks: nothing.
-- Returns: workspace_id, number (0: there is none), wrapped, master of each workspace that exists.
SELECT w.workspace_id, coalesce(k.number, 0), k.wrapped, k.master
FROM taximeter.workspaces AS w
LEFT JOIN taximeter.workspace_keys AS k
  ON k.workspace_id = w.workspace_id AND k.number = w.payload_key AND k.wrapped IS NOT NULL
WHERE w.workspace_id = ANY(%(workspace_ids)s::text[])
