-- Reads the first usage of a workspace that was ever repriced; NULL if none was. Locks: nothing.
SELECT min(seq) FROM taximeter.repriced_usages WHERE workspace_id = %s
