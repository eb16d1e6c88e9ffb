-- Erasing what events said, by the owner. Each statement is short: none holds a balance's lock but `begin`, which touches one
-- row, and none of the others touches more than a chunk.

-- name: say_so
-- Lets the rest of the transaction empty contents, which the triggers refuse otherwise.
SELECT set_config('taximeter.erasing', 'on', true)

-- name: begin
-- Takes: the workspace. Locks: the workspace's row: a batch that is being booked with the old key comes before, every other one
-- gets a new key. Returns: the last usage and the last quarantine entry that there are; no row: no such workspace.
UPDATE taximeter.workspaces SET payload_key = 0 WHERE workspace_id = %(id)s
RETURNING usage_count, (SELECT coalesce(max(id), 0) FROM taximeter.quarantine)

-- name: keys
-- Takes: the workspace. Destroys the workspace's data keys: what was encrypted is unreadable from then on.
UPDATE taximeter.workspace_keys SET wrapped = NULL, erased_at = clock_timestamp()
WHERE workspace_id = %(id)s AND wrapped IS NOT NULL

-- name: payloads
-- Takes: the workspace and a range of usages. Empties payloads that were never encrypted.
UPDATE taximeter.usage_payloads SET payload = '', codec = -1
WHERE workspace_id = %(id)s AND codec IN (0, 1) AND seq > %(after)s AND seq <= %(upto)s

-- name: entries
-- Takes: the workspace and a range of quarantine entries. Returns: the next ones that hold an event or a correction.
SELECT q.id FROM taximeter.quarantine AS q
WHERE q.workspace_id = %(id)s AND q.id > %(after)s AND q.id <= %(upto)s
  AND (q.event <> '' OR q.properties IS NOT NULL OR EXISTS (SELECT FROM taximeter.quarantine_actions AS a
                                WHERE a.entry_id = q.id AND a.correction IS NOT NULL))
ORDER BY q.id LIMIT %(limit)s

-- name: corrections
-- Takes: entries. Empties the corrections that were tried in their place.
UPDATE taximeter.quarantine_actions SET correction = NULL WHERE correction IS NOT NULL AND entry_id = ANY(%(ids)s)

-- name: quarantine
-- Takes: entries. Empties the events and what came with their messages; entries that are open are dismissed.
UPDATE taximeter.quarantine
SET event = '', properties = NULL, resolution = coalesce(resolution, 'dismissed'), resolved_at = coalesce(resolved_at, clock_timestamp()),
    resolved_by = coalesce(resolved_by, %(by)s), resolution_note = coalesce(resolution_note, 'contents erased')
WHERE id = ANY(%(ids)s) AND (event <> '' OR properties IS NOT NULL)

-- name: vacuum_small
-- What was overwritten must not linger in dead rows.
VACUUM taximeter.workspace_keys, taximeter.quarantine, taximeter.quarantine_actions

-- name: vacuum_payloads
VACUUM taximeter.usage_payloads
