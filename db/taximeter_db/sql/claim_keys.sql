-- Claims the idempotency keys of a batch of usages.
-- Takes: three arrays of one length, sorted by (event_key, workspace_id), each pair once.
-- Locks: the new keys, in the order given; waits for another transaction that is inserting one of them.
--        Every writer sorts alike, so no two can wait for each other.
-- Returns one row: how many were new and, only where some were not, which were. Those that are missing
--        existed before: duplicates or conflicts, see read_keys.sql.
WITH given AS (
    SELECT * FROM unnest(%(event_keys)s, %(workspace_ids)s, %(fingerprints)s) AS g (event_key, workspace_id, fingerprint)
), claimed AS (
    INSERT INTO taximeter.usage_keys (event_key, workspace_id, fingerprint)
    SELECT event_key, workspace_id, fingerprint FROM given
    ON CONFLICT DO NOTHING
    RETURNING event_key, workspace_id
)
SELECT count(*),
       CASE WHEN count(*) < %(count)s THEN array_agg(event_key) END,
       CASE WHEN count(*) < %(count)s THEN array_agg(workspace_id) END
FROM claimed
