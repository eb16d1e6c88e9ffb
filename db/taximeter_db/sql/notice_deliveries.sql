-- Delivering notices. A lane is a workspace's notices to one target; whoever holds its lease delivers them one after another.

-- name: claim
-- Leases lanes that are due: the longest waiting first, few of one target, none of a target that just failed.
-- Takes: lanes (how many), of_target (how many of one target may be leased at once), seconds (of the lease), lease.
-- Locks: the rows of the lanes it takes; what another has locked is left out. Returns: the lanes.
WITH busy AS MATERIALIZED (
    SELECT b.target_id, count(*) AS lanes FROM taximeter.notice_lanes AS b
    WHERE b.due_at IS NOT NULL AND b.leased_until > now() GROUP BY b.target_id
), candidates AS MATERIALIZED (
    SELECT l.workspace_id, l.target_id, l.due_at,
           row_number() OVER (PARTITION BY l.target_id ORDER BY l.due_at) + coalesce(b.lanes, 0) AS nth
    FROM taximeter.notice_lanes AS l
    JOIN taximeter.notice_targets AS t
      ON t.target_id = l.target_id AND t.workspace_id IN (l.workspace_id, '*') AND t.disabled_at IS NULL
    LEFT JOIN busy AS b ON b.target_id = l.target_id
    WHERE l.due_at <= now() AND (l.leased_until IS NULL OR l.leased_until <= now())
      AND (t.retry_at IS NULL OR t.retry_at <= now())
), taken AS (
    SELECT l.workspace_id, l.target_id FROM taximeter.notice_lanes AS l
    JOIN candidates AS c USING (workspace_id, target_id)
    WHERE c.nth <= %(of_target)s AND l.due_at <= now() AND (l.leased_until IS NULL OR l.leased_until <= now())
    ORDER BY c.due_at LIMIT %(lanes)s
    FOR UPDATE OF l SKIP LOCKED
)
UPDATE taximeter.notice_lanes AS l
SET lease = %(lease)s, leased_until = now() + %(seconds)s * interval '1 second'
FROM taken AS k WHERE l.workspace_id = k.workspace_id AND l.target_id = k.target_id
RETURNING l.workspace_id, l.target_id

-- name: is_due
-- Whether `claim` would find a lane. Returns: a boolean.
SELECT EXISTS (
    SELECT FROM taximeter.notice_lanes AS l
    LEFT JOIN taximeter.notice_targets AS t
      ON t.target_id = l.target_id AND t.workspace_id IN (l.workspace_id, '*') AND t.disabled_at IS NULL
    WHERE l.due_at <= now() AND (l.leased_until IS NULL OR l.leased_until <= now())
      AND (t.retry_at IS NULL OR t.retry_at <= now()))

-- name: renew
-- Locks a lane whose lease is still this one's, and extends the lease. Takes: lease, seconds.
-- Returns: a row, or none where the lease ran out and another took it.
UPDATE taximeter.notice_lanes SET leased_until = now() + %(seconds)s * interval '1 second'
WHERE workspace_id = %(workspace_id)s AND target_id = %(target_id)s AND lease = %(lease)s RETURNING 1

-- name: target
-- The target of a lane. Returns: what is needed to send, or no row where it was removed or disabled.
SELECT t.workspace_id, t.channel, t.address, t.secret,
       CASE WHEN t.secret_before_until > now() THEN t.secret_before END, t.master, t.allow_private, t.quiet_seconds, t.failures
FROM taximeter.notice_targets AS t
WHERE t.target_id = %(target_id)s AND t.workspace_id IN (%(workspace_id)s, '*') AND t.disabled_at IS NULL

-- name: head
-- The next notice of a lane: the first that is pending and not held back. Returns: it, or no row.
SELECT d.notice_id, n.public_id, n.type, n.subject, n.state, n.body, d.tries,
       extract(epoch FROM now() - d.queued_at)::bigint
FROM taximeter.notice_deliveries AS d JOIN taximeter.notices AS n USING (workspace_id, notice_id)
WHERE d.workspace_id = %(workspace_id)s AND d.target_id = %(target_id)s AND d.state = 'pending'
  AND (d.held_until IS NULL OR d.held_until <= now())
ORDER BY d.notice_id LIMIT 1

-- name: flapping
-- What a target with a quiet time got of a subject. Takes: notice_id, subject, state, seconds.
-- Returns one row: until when this state is not sent again (NULL: it may be sent), the state that was sent last, and whether
-- a newer one of the subject is pending.
SELECT max(d.ended_at) FILTER (WHERE d.state = 'delivered' AND n.state = %(state)s
                               AND d.ended_at > now() - %(seconds)s * interval '1 second')
           + %(seconds)s * interval '1 second',
       (array_agg(n.state ORDER BY n.notice_id DESC) FILTER (WHERE d.state = 'delivered'))[1],
       coalesce(bool_or(d.state = 'pending' AND n.notice_id > %(notice_id)s), false)
FROM taximeter.notice_deliveries AS d JOIN taximeter.notices AS n USING (workspace_id, notice_id)
WHERE d.workspace_id = %(workspace_id)s AND d.target_id = %(target_id)s AND n.subject = %(subject)s
  AND (d.state = 'pending' OR d.ended_at > now() - greatest(%(seconds)s, 86400) * interval '1 second')

-- name: supersede_held
-- Ends those of a subject that were held back: a newer one is sent. Takes: subject, notice_id (of the newer one).
UPDATE taximeter.notice_deliveries AS d SET state = 'superseded', ended_at = clock_timestamp(), held_until = NULL
FROM taximeter.notices AS n
WHERE n.workspace_id = d.workspace_id AND n.notice_id = d.notice_id AND n.subject = %(subject)s
  AND d.workspace_id = %(workspace_id)s AND d.target_id = %(target_id)s AND d.state = 'pending'
  AND d.notice_id < %(notice_id)s

-- name: hold
-- Holds a notice back until then.
UPDATE taximeter.notice_deliveries SET held_until = %(until)s
WHERE workspace_id = %(workspace_id)s AND target_id = %(target_id)s AND notice_id = %(notice_id)s AND state = 'pending'

-- name: end
-- Ends a delivery, or counts a try of one that goes on. Takes: state, tried (0 or 1).
UPDATE taximeter.notice_deliveries
SET state = %(state)s, tries = tries + %(tried)s, held_until = NULL,
    ended_at = CASE WHEN %(state)s <> 'pending' THEN clock_timestamp() END
WHERE workspace_id = %(workspace_id)s AND target_id = %(target_id)s AND notice_id = %(notice_id)s AND state = 'pending'

-- name: log_try
INSERT INTO taximeter.notice_tries (workspace_id, target_id, notice_id, outcome, detail, milliseconds)
VALUES (%(workspace_id)s, %(target_id)s, %(notice_id)s, %(outcome)s, %(detail)s, %(milliseconds)s)

-- name: release
-- Gives a lane back. Takes: retry_seconds, how long it waits after a failure (NULL: it did not fail). Runs after renew, so
-- that a notice that is written meanwhile either is seen here or finds the lane as it is left.
UPDATE taximeter.notice_lanes AS l
SET lease = NULL, leased_until = NULL,
    retry_at = now() + %(retry_seconds)s::float8 * interval '1 second',
    due_at = greatest((SELECT min(coalesce(d.held_until, now())) FROM taximeter.notice_deliveries AS d
                       WHERE d.workspace_id = l.workspace_id AND d.target_id = l.target_id AND d.state = 'pending'),
                      now() + %(retry_seconds)s::float8 * interval '1 second')
WHERE l.workspace_id = %(workspace_id)s AND l.target_id = %(target_id)s

-- name: target_failed
-- Notes a failure of a target; for as long nobody tries another of its lanes.
UPDATE taximeter.notice_targets
SET failures = failures + 1, retry_at = now() + %(seconds)s::float8 * interval '1 second'
WHERE target_id = %(target_id)s AND workspace_id IN (%(workspace_id)s, '*')

-- name: target_answered
-- Notes that a target that had failed takes notices again.
UPDATE taximeter.notice_targets SET failures = 0, retry_at = NULL
WHERE target_id = %(target_id)s AND workspace_id IN (%(workspace_id)s, '*') AND failures > 0

-- name: disable_target
-- Sends nothing more to a target that says it is gone.
UPDATE taximeter.notice_targets SET disabled_at = clock_timestamp(), disabled_why = %(why)s
WHERE target_id = %(target_id)s AND workspace_id IN (%(workspace_id)s, '*') AND disabled_at IS NULL

-- name: bury_lane
-- Ends all that is pending of a lane whose target was removed or disabled.
UPDATE taximeter.notice_deliveries SET state = 'dead', ended_at = clock_timestamp(), held_until = NULL
WHERE workspace_id = %(workspace_id)s AND target_id = %(target_id)s AND state = 'pending'

-- name: orphans
-- Lanes with something pending whose target was removed or disabled. Returns: the first hundred.
SELECT l.workspace_id, l.target_id FROM taximeter.notice_lanes AS l
WHERE l.due_at IS NOT NULL AND NOT EXISTS (
    SELECT FROM taximeter.notice_targets AS t
    WHERE t.target_id = l.target_id AND t.workspace_id IN (l.workspace_id, '*') AND t.disabled_at IS NULL)
LIMIT 100

-- name: end_lane
-- Ends a lane's waiting once everything of it is ended.
UPDATE taximeter.notice_lanes SET due_at = NULL, retry_at = NULL, lease = NULL, leased_until = NULL
WHERE workspace_id = %(workspace_id)s AND target_id = %(target_id)s

-- name: lock_any_lane
SELECT 1 FROM taximeter.notice_lanes
WHERE workspace_id = %(workspace_id)s AND target_id = %(target_id)s FOR UPDATE

-- name: put_test
-- Queues one notice for one target, whatever its types. Takes: public_id, workspace_id, target_id, type, body.
-- Returns: the notice's number.
WITH written AS (
    INSERT INTO taximeter.notices (public_id, workspace_id, type, body, happened_at)
    VALUES (%(public_id)s, %(workspace_id)s, %(type)s, %(body)s, now()) RETURNING notice_id
), queued AS (
    INSERT INTO taximeter.notice_deliveries (workspace_id, target_id, notice_id)
    SELECT %(workspace_id)s, %(target_id)s, w.notice_id FROM written AS w
), lane AS (
    INSERT INTO taximeter.notice_lanes AS l (workspace_id, target_id, due_at)
    VALUES (%(workspace_id)s, %(target_id)s, now())
    ON CONFLICT (workspace_id, target_id) DO UPDATE SET due_at = now(), retry_at = NULL
)
SELECT w.notice_id FROM written AS w

-- name: replay
-- Lets what is dead be tried again. Takes: target_id; workspace_id or NULL for all of its lanes. Returns: how many those are.
WITH again AS (
    UPDATE taximeter.notice_deliveries
    SET state = 'pending', ended_at = NULL, held_until = NULL, tries = 0, queued_at = clock_timestamp()
    WHERE target_id = %(target_id)s AND state = 'dead'
      AND (%(workspace_id)s::text IS NULL OR workspace_id = %(workspace_id)s)
    RETURNING workspace_id, target_id
), lanes AS (
    INSERT INTO taximeter.notice_lanes AS l (workspace_id, target_id, due_at)
    SELECT DISTINCT a.workspace_id COLLATE "C", a.target_id, now() FROM again AS a ORDER BY 1, 2
    ON CONFLICT (workspace_id, target_id) DO UPDATE SET due_at = now(), retry_at = NULL
)
SELECT count(*) FROM again

-- name: forget
-- Deletes what ended long ago, some at a time. Takes: days. Returns: how many notices went.
WITH old AS (
    SELECT n.workspace_id, n.notice_id FROM taximeter.notices AS n
    WHERE n.happened_at < now() - %(days)s * interval '1 day'
      AND NOT EXISTS (SELECT FROM taximeter.notice_deliveries AS d
                      WHERE d.workspace_id = n.workspace_id AND d.notice_id = n.notice_id
                        AND (d.state = 'pending' OR d.ended_at > now() - %(days)s * interval '1 day'))
    LIMIT 5000
), tries AS (
    DELETE FROM taximeter.notice_tries AS t USING old AS o
    WHERE t.workspace_id = o.workspace_id AND t.notice_id = o.notice_id
), gone AS (
    DELETE FROM taximeter.notice_deliveries AS d USING old AS o
    WHERE d.workspace_id = o.workspace_id AND d.notice_id = o.notice_id
)
DELETE FROM taximeter.notices AS n USING old AS o
WHERE n.workspace_id = o.workspace_id AND n.notice_id = o.notice_id

-- name: sent
-- The newest notices of a workspace, one row for each target. Takes: workspace_id, before (a notice's number), limit.
SELECT d.notice_id, n.public_id, n.type, n.happened_at, d.target_id, d.state, d.tries, d.ended_at,
       t.outcome, t.detail, t.tried_at
FROM taximeter.notice_deliveries AS d
JOIN taximeter.notices AS n USING (workspace_id, notice_id)
LEFT JOIN LATERAL (
    SELECT x.outcome, x.detail, x.tried_at FROM taximeter.notice_tries AS x
    WHERE x.workspace_id = d.workspace_id AND x.notice_id = d.notice_id AND x.target_id = d.target_id
    ORDER BY x.id DESC LIMIT 1) AS t ON true
WHERE d.workspace_id = %(workspace_id)s AND (%(before)s::bigint IS NULL OR d.notice_id < %(before)s)
  AND (%(target_id)s::bigint IS NULL OR d.target_id = %(target_id)s)
ORDER BY d.notice_id DESC, d.target_id LIMIT %(limit)s

-- name: now
-- The present time as notices write it.
SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')

-- name: counts
-- How many deliveries of each target are pending and dead. Returns: only targets that have some.
SELECT target_id, count(*) FILTER (WHERE state = 'pending'), count(*) FILTER (WHERE state = 'dead')
FROM taximeter.notice_deliveries WHERE state IN ('pending', 'dead') GROUP BY target_id
