-- Compares the idempotency keys with the usages that they were claimed for: additive hashes of both sets, so that neither is
-- sorted nor looked up in the other. {whose} is '' for one sum over all, or the workspace's id for a sum of each.
-- Locks: nothing; the caller's snapshot.

-- name: sums
-- Takes: where braces stand, whose sums, and something with the columns event_key, workspace_id, fingerprint.
-- Returns: how many there are, a hash of keys and workspaces, a hash of these and the fingerprints, and how many have none.
SELECT {whose} AS workspace_id, count(*),
       sum(uuid_hash_extended(k.event_key, hashtextextended(k.workspace_id, 0))),
       coalesce(sum(uuid_hash_extended(k.fingerprint,
                                       uuid_hash_extended(k.event_key, hashtextextended(k.workspace_id, 0)))), 0),
       count(*) FILTER (WHERE k.fingerprint IS NULL)
FROM {keys} AS k GROUP BY 1

-- name: given
-- Keys that Python hashed: arrays of one length.
(SELECT * FROM unnest(%(event_keys)s::uuid[], %(workspace_ids)s::text[], %(fingerprints)s::uuid[])
     AS g (event_key, workspace_id, fingerprint))

-- name: own
-- Takes: whose sums, and a chunk's usages, where braces stand.
-- Returns: like `sums`, of the usages whose id is a canonical UUID that stands for itself, see `event_key` in ledger/events.py;
-- and how many have another id. Fails with invalid_text_representation where an id only looks like one.
-- Each OFFSET 0 keeps what is computed below it from being computed again for every use. A pattern of regular expressions
-- would cost several times as much.
SELECT {whose} AS workspace_id, count(*) FILTER (WHERE is_own), coalesce(sum(hash) FILTER (WHERE is_own), 0),
       coalesce(sum(uuid_hash_extended(fingerprint, hash)) FILTER (WHERE is_own), 0),
       count(*) FILTER (WHERE is_own AND fingerprint IS NULL), count(*) FILTER (WHERE is_own IS NOT TRUE)
FROM (SELECT workspace_id, fingerprint, event_key::text = event_id AS is_own,
             uuid_hash_extended(event_key, hashtextextended(workspace_id, 0)) AS hash
      FROM (SELECT u.workspace_id, u.fingerprint, u.event_id,
                   CASE WHEN u.event_id LIKE '________-____-____-____-____________' AND substr(u.event_id, 15, 1) <> '8'
                        THEN u.event_id::uuid END AS event_key
            FROM {usages} OFFSET 0) AS i
      OFFSET 0) AS k
GROUP BY 1

-- name: usages
-- The same usages, however odd the others' ids are.
(SELECT CASE WHEN u.event_id ~ '{uuid}' THEN u.event_id::uuid END AS event_key, u.workspace_id, u.fingerprint
 FROM {usages} AND u.event_id ~ '{uuid}')

-- name: hashed
-- Returns: a chunk's usages whose id is hashed, which PostgreSQL cannot do.
SELECT u.event_id, u.workspace_id, u.fingerprint::text FROM {usages} AND u.event_id !~ '{uuid}'

-- name: twice
-- Takes: a workspace. Returns: for each event id that was booked more than once, the id and the second entry.
SELECT event_id, (array_agg(entry ORDER BY entry))[2] FROM taximeter.usages
WHERE workspace_id = %(workspace_id)s GROUP BY event_id HAVING count(*) > 1 ORDER BY 2 LIMIT 100
