-- Puts events into quarantine, whole. An event that is there already (a redelivered message) stays one entry: see `digest`.
-- What names no workspace is cut to its first 1,024 bytes, and says so, while the quarantine takes more space than the database
-- setting taximeter.quarantine_bytes_max (10 GiB unless it is set): a sender of rubbish must not fill the disk.
-- Takes: arrays of one length, each digest once. Locks: the new entries, in the order of their digests, so that two workers that
-- insert the same events do not deadlock. They are numbered in the order given: a replay goes by numbers, and of several events of
-- one id the first one to be booked counts.
WITH bounds AS MATERIALIZED (
    SELECT pg_total_relation_size('taximeter.quarantine')
           >= coalesce(nullif(current_setting('taximeter.quarantine_bytes_max', true), '')::bigint, 10737418240) AS is_full
), given AS (
    SELECT g.*, workspace_id IS NULL AND octet_length(event) > 1024 AND is_full AS is_cut
    FROM unnest(%(kinds)s::text[], %(workspace_ids)s::text[], %(event_ids)s::text[], %(reasons)s::text[],
                %(details)s::text[], %(events)s::bytea[], %(content_types)s::text[],
                %(properties)s::json[], %(price_queries)s::jsonb[], %(digests)s::bytea[])
         WITH ORDINALITY
         AS g (kind, workspace_id, event_id, reason, detail, event, content_type, properties, price_query, digest, place), bounds
), numbered AS MATERIALIZED (
    SELECT nextval('taximeter.quarantine_id_seq') AS id, i.* FROM (SELECT * FROM given ORDER BY place OFFSET 0) AS i
)
INSERT INTO taximeter.quarantine (id, kind, workspace_id, event_id, reason, detail, event, content_type,
                                  properties, price_query, digest)
OVERRIDING SYSTEM VALUE
SELECT id, kind, workspace_id, event_id, reason,
       CASE WHEN is_cut THEN detail || format(' The quarantine is full: of %%s bytes the first 1024 are kept.', octet_length(event))
            ELSE detail END,
       CASE WHEN is_cut THEN substring(event FROM 1 FOR 1024) ELSE event END,
       content_type, properties, price_query, digest
FROM numbered ORDER BY digest
ON CONFLICT (digest) WHERE resolved_at IS NULL DO NOTHING
