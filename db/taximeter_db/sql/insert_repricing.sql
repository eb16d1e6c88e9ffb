-- Begins a repricing; returns its number. Locks: nothing but the new row.
INSERT INTO taximeter.repricings (created_by, reason, revision, since, until, tool, workspace_id)
VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING repricing
