-- Parks events in quarantine, whole. An event whose very bytes are parked already (a redelivered message) stays one entry.
-- Takes: arrays of one length, sorted by digest. Locks: the new entries, in the order given.
INSERT INTO taximeter.quarantine (kind, workspace_id, event_id, reason, detail, event, content_type, digest)
SELECT * FROM unnest(%(kinds)s::text[], %(workspace_ids)s::text[], %(event_ids)s::text[], %(reasons)s::text[],
                     %(details)s::text[], %(events)s::bytea[], %(content_types)s::text[], %(digests)s::bytea[])
ON CONFLICT (digest) WHERE resolved_at IS NULL DO NOTHING
