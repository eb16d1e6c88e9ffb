-- Delivering the notices of several lanes at once: as notice_deliveries.sql, with one statement for all of them.

-- name: renew
-- Locks those lanes whose lease is still held, sorted, and extends it. Takes: arrays of one length, one element a lane
-- (workspace_ids, target_ids, leases); seconds. Returns: those lanes.
WITH held AS MATERIALIZED (
    SELECT l.workspace_id, l.target_id FROM taximeter.notice_lanes AS l
    JOIN unnest(%(workspace_ids)s::text[], %(target_ids)s::bigint[], %(leases)s::uuid[])
         AS k (workspace_id, target_id, lease)
      ON l.workspace_id = k.workspace_id AND l.target_id = k.target_id AND l.lease = k.lease
    ORDER BY l.workspace_id, l.target_id FOR UPDATE OF l
)
UPDATE taximeter.notice_lanes AS l SET leased_until = now() + %(seconds)s * interval '1 second'
FROM held AS h WHERE l.workspace_id = h.workspace_id AND l.target_id = h.target_id
RETURNING l.workspace_id, l.target_id

-- name: delivered
-- Notes that notices were delivered, and logs the tries. Takes: arrays of one length, one element a notice
-- (workspace_ids, target_ids, notice_ids, details, milliseconds). Runs after renew, in its transaction.
WITH tried AS MATERIALIZED (
    SELECT k.* FROM unnest(%(workspace_ids)s::text[], %(target_ids)s::bigint[], %(notice_ids)s::bigint[],
                           %(details)s::text[], %(milliseconds)s::integer[])
                    AS k (workspace_id, target_id, notice_id, detail, milliseconds)
), ended AS (
    UPDATE taximeter.notice_deliveries AS d
    SET state = 'delivered', tries = d.tries + 1, held_until = NULL, ended_at = clock_timestamp()
    FROM tried AS t
    WHERE d.workspace_id = t.workspace_id AND d.target_id = t.target_id AND d.notice_id = t.notice_id
      AND d.state = 'pending'
)
INSERT INTO taximeter.notice_tries (workspace_id, target_id, notice_id, outcome, detail, milliseconds)
SELECT t.workspace_id, t.target_id, t.notice_id, 'delivered', t.detail, t.milliseconds FROM tried AS t

-- name: next
-- The target and the next notice of lanes: the first that is pending and not held back. Takes: arrays of one length, one
-- element a lane (workspace_ids, target_ids). Returns: a row for each lane that has both.
SELECT k.workspace_id, k.target_id, t.workspace_id, t.channel, t.address, t.secret,
       CASE WHEN t.secret_before_until > now() THEN t.secret_before END, t.master, t.allow_private, t.quiet_seconds, t.failures,
       h.*
FROM unnest(%(workspace_ids)s::text[], %(target_ids)s::bigint[]) AS k (workspace_id, target_id)
JOIN taximeter.notice_targets AS t
  ON t.target_id = k.target_id AND t.workspace_id IN (k.workspace_id, '*') AND t.disabled_at IS NULL
CROSS JOIN LATERAL (
    SELECT d.notice_id, n.public_id, n.type, n.subject, n.state, n.body, d.tries,
           extract(epoch FROM now() - d.queued_at)::bigint
    FROM taximeter.notice_deliveries AS d JOIN taximeter.notices AS n USING (workspace_id, notice_id)
    WHERE d.workspace_id = k.workspace_id AND d.target_id = k.target_id AND d.state = 'pending'
      AND (d.held_until IS NULL OR d.held_until <= now())
    ORDER BY d.notice_id LIMIT 1) AS h

-- name: release
-- Gives lanes back that did not fail. Takes: arrays of one length (workspace_ids, target_ids). Runs after renew, in its
-- transaction, so that a notice that is written meanwhile either is seen here or finds the lane as it is left.
UPDATE taximeter.notice_lanes AS l
SET lease = NULL, leased_until = NULL, retry_at = NULL,
    due_at = (SELECT min(coalesce(d.held_until, now())) FROM taximeter.notice_deliveries AS d
              WHERE d.workspace_id = l.workspace_id AND d.target_id = l.target_id AND d.state = 'pending')
FROM unnest(%(workspace_ids)s::text[], %(target_ids)s::bigint[]) AS k (workspace_id, target_id)
WHERE l.workspace_id = k.workspace_id AND l.target_id = k.target_id
