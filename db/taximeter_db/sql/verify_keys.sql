-- Compares the idempotency keys with the usages that they were claimed for: additive hashes of both sets, so that neither is
-- sorted nor looked up in the other; verify_chunk.sql makes those of the usages while it walks them. {whose} is '' for one sum
-- over all, or the workspace's id for a sum of each.
-- Locks: nothing; the caller's snapshot.

-- name: sums
-- Takes: where braces stand, whose sums, and something with the columns event_key, workspace_id, fingerprint.
-- Returns: how many there are, a hash of keys and workspaces, a hash of these and the fingerprints, and how many have none.
SELECT {whose} AS workspace_id, count(*), sum(hash), coalesce(sum(uuid_hash_extended(k.fingerprint, hash)), 0),
       count(*) FILTER (WHERE k.fingerprint IS NULL)
FROM (SELECT workspace_id, fingerprint, hashtextextended(event_key::text, hashtextextended(workspace_id, 0)) AS hash
      FROM {keys} AS g
      -- or the hash would be computed again for every use
      OFFSET 0) AS k
GROUP BY 1

-- name: given
-- Keys that Python hashed: arrays of one length.
(SELECT * FROM unnest(%(event_keys)s::uuid[], %(workspace_ids)s::text[], %(fingerprints)s::uuid[])
     AS a (event_key, workspace_id, fingerprint))

-- name: is_own
-- Whether an id is a canonical UUID that stands for itself, see `event_key` in ledger/events.py.
u.event_id ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-79a-f][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$'

-- name: looks_own
-- The same in a fraction of the time, but wrong for ids that only look like one: they make the sums disagree, and what disagrees
-- is compared by `is_own`.
u.event_id LIKE '________-____-____-____-____________' AND substr(u.event_id, 15, 1) <> '8' AND u.event_id = lower(u.event_id)

-- name: usages
-- A chunk's usages whose id is its own key.
(SELECT CASE WHEN {is_own} THEN u.event_id::uuid END AS event_key, u.workspace_id, u.fingerprint
 FROM {usages} AND {is_own})

-- name: hashed
-- Returns: a chunk's usages whose id is hashed, which PostgreSQL cannot do.
SELECT u.event_id, u.workspace_id, u.fingerprint::text FROM {usages} AND NOT ({is_own})

-- name: twice
-- Takes: a workspace. Returns: for each event id that was booked more than once, the id and the second entry.
SELECT event_id, (array_agg(entry ORDER BY entry))[2] FROM taximeter.usages
WHERE workspace_id = %(workspace_id)s GROUP BY event_id HAVING count(*) > 1 ORDER BY 2 LIMIT 100
