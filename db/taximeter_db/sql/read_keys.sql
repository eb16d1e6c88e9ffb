-- Reads the fingerprints of keys that were claimed before.
-- Takes: two arrays of one length. Locks: nothing.
-- Returns: event_key, workspace_id, fingerprint of each that exists.
SELECT k.event_key, k.workspace_id, k.fingerprint
FROM unnest(%(event_keys)s, %(workspace_ids)s) AS g (event_key, workspace_id)
JOIN taximeter.usage_keys AS k ON k.event_key = g.event_key AND k.workspace_id = g.workspace_id
