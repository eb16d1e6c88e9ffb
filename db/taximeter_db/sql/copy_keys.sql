-- Claims the idempotency keys of a batch that is expected to hold new ones alone. Binary rows, packed by claims.py in
-- this order of columns, sorted by (event_key, workspace_id), each pair once.
-- Locks: as claim_keys.sql. Fails with a unique violation where a key exists.
COPY taximeter.usage_keys (event_key, workspace_id, fingerprint) FROM STDIN (FORMAT binary)
