-- Budgets: what booking counts, and what setting a budget, a period's end and a repricing change. Whoever runs one of those that
-- write holds the row of the workspace in taximeter.workspaces, which puts all changes of its budgets in order; no other lock is
-- waited for. A minute is a number: those since 1970-01-01 UTC.

-- name: find
-- Takes: workspaces and selectors, arrays of one length. Returns: the budgets that usages of these selectors may count for.
SELECT b.workspace_id, b.selector, b.name, b.user_id, b.tool, b.model, b.tag, b.tag_value
FROM unnest(%(workspace_ids)s::text[], %(selectors)s::text[]) AS v (workspace_id, selector)
JOIN taximeter.budgets AS b ON b.workspace_id = v.workspace_id AND b.selector = v.selector

-- name: add
-- Adds what usages of certain minutes cost to what was spent. Takes: arrays of one length.
INSERT INTO taximeter.budget_spending AS s (workspace_id, name, bucket, cost, usages)
SELECT b.workspace_id, b.name, k.bucket, sum(v.cost), sum(v.usages)
FROM unnest(%(workspace_ids)s::text[], %(names)s::text[], %(minutes)s::bigint[], %(costs)s::numeric[], %(usages)s::bigint[])
     AS v (workspace_id, name, minute, cost, usages)
JOIN taximeter.budgets AS b ON b.workspace_id = v.workspace_id AND b.name = v.name
CROSS JOIN LATERAL (SELECT taximeter.budget_bucket(b.period, b.hours, b.zone, to_timestamp(v.minute * 60)) AS bucket) AS k
WHERE k.bucket >= b.counted_from
GROUP BY 1, 2, 3
ON CONFLICT (workspace_id, name, bucket) DO UPDATE SET cost = s.cost + excluded.cost, usages = s.usages + excluded.usages

-- name: add_repriced
-- Adds what a repricing changed. Takes: the workspace, the repricing. Returns: the names of the budgets that it concerns.
WITH changed AS (
    SELECT b.name, k.bucket, sum(r.new_cost - r.old_cost) AS cost
    FROM taximeter.repriced_usages AS r
    JOIN taximeter.usages AS u ON u.workspace_id = r.workspace_id AND u.seq = r.seq
    CROSS JOIN LATERAL unnest(ARRAY['', 'user:' || u.user_id, 'tool:' || u.tool, 'model:' || u.model]
                              || ARRAY(SELECT 'tag:' || t.key || '=' || t.value FROM json_each_text(u.tags) AS t))
               AS v (selector)
    JOIN taximeter.budgets AS b ON b.workspace_id = u.workspace_id AND b.selector = v.selector
    CROSS JOIN LATERAL (SELECT taximeter.budget_bucket(b.period, b.hours, b.zone, u.occurred_at) AS bucket) AS k
    WHERE r.workspace_id = %(workspace_id)s AND r.repricing = %(repricing)s AND k.bucket >= b.counted_from
      AND (b.user_id IS NULL OR b.user_id = u.user_id) AND (b.tool IS NULL OR b.tool = u.tool)
      AND (b.model IS NULL OR b.model = u.model) AND (b.tag IS NULL OR u.tags ->> b.tag = b.tag_value)
    GROUP BY 1, 2
), added AS (
    INSERT INTO taximeter.budget_spending AS s (workspace_id, name, bucket, cost, usages)
    SELECT %(workspace_id)s, c.name, c.bucket, c.cost, 0 FROM changed AS c
    ON CONFLICT (workspace_id, name, bucket) DO UPDATE SET cost = s.cost + excluded.cost
)
SELECT DISTINCT name FROM changed

-- name: standings
-- Takes: workspaces, names and moments (microseconds since 1970), arrays of one length. Returns: each budget with what is known of
-- it, whether its hours roll, the first bucket of the period that the moment lies in, what was spent in the period, by how many usages, and when the
-- period ends (of rolling hours, when the oldest of its spending is no longer in it), and whether usages of later periods are booked.
SELECT b.workspace_id, b.name, b.amount::text, b.hard, b.thresholds, b.window_start, b.reached, b.exceeded, b.due_at,
       b.period = 'hours', p.window_start, coalesce(s.cost, 0)::numeric(27,12)::text, coalesce(s.usages, 0)::bigint,
       CASE WHEN b.period = 'hours'
            THEN s.oldest + make_interval(hours => b.hours, mins => CASE WHEN b.hours <= 24 THEN 1 ELSE 15 END)
            ELSE taximeter.budget_period_end(b.period, b.zone, m.moment) END,
       b.period IN ('day', 'week', 'month')
       AND EXISTS (SELECT FROM taximeter.budget_spending AS l
                   WHERE l.workspace_id = b.workspace_id AND l.name = b.name AND l.bucket > p.window_start)
FROM unnest(%(workspace_ids)s::text[], %(names)s::text[], %(moments)s::bigint[]) AS v (workspace_id, name, moment)
JOIN taximeter.budgets AS b ON b.workspace_id = v.workspace_id AND b.name = v.name
CROSS JOIN LATERAL (SELECT to_timestamp(0) + v.moment * interval '1 microsecond' AS moment) AS m
CROSS JOIN LATERAL (SELECT taximeter.budget_window(b.period, b.hours, b.zone, m.moment) AS window_start) AS p
LEFT JOIN LATERAL (
    SELECT sum(s.cost) AS cost, sum(s.usages) AS usages, min(s.bucket) AS oldest FROM taximeter.budget_spending AS s
    WHERE s.workspace_id = b.workspace_id AND s.name = b.name AND s.bucket >= p.window_start
      AND (b.period = 'hours' OR s.bucket = p.window_start)
) AS s ON true
ORDER BY b.workspace_id, b.name

-- name: stand
-- Notes where budgets stand. Takes: arrays of one length.
UPDATE taximeter.budgets AS b
SET window_start = v.window_start, reached = v.reached, exceeded = v.exceeded, due_at = v.due_at
FROM unnest(%(workspace_ids)s::text[], %(names)s::text[], %(window_starts)s::timestamptz[], %(reached)s::integer[],
            %(exceeded)s::boolean[], %(due_at)s::timestamptz[])
     AS v (workspace_id, name, window_start, reached, exceeded, due_at)
WHERE b.workspace_id = v.workspace_id AND b.name = v.name

-- name: cross
-- Logs crossings, in the order given. Takes: arrays of one length.
INSERT INTO taximeter.budget_crossings (workspace_id, crossed_at, name, kind, percent, spent, amount, hard, cause, cause_id)
SELECT v.workspace_id, to_timestamp(0) + v.moment * interval '1 microsecond', v.name,
       v.kind, v.percent, v.spent, v.amount, v.hard, v.cause, v.cause_id
FROM unnest(%(workspace_ids)s::text[], %(moments)s::bigint[], %(names)s::text[], %(kinds)s::text[], %(percents)s::integer[],
            %(spent)s::numeric[], %(amounts)s::numeric[], %(hard)s::boolean[], %(causes)s::text[], %(cause_ids)s::text[])
     WITH ORDINALITY AS v (workspace_id, moment, name, kind, percent, spent, amount, hard, cause, cause_id, position)
ORDER BY v.position

-- name: refusals
-- When hard budgets refused calls. Takes: a workspace; since, before which nothing that had ended counts; limit.
-- Returns: of each time its budget, begin, end (NULL: it lasts), what was spent and the limit at its begin, and the usage, or who or
-- what else, that used it up; the newest first. A budget that was made soft, or is gone without a trace, ended unseen: its end is
-- the time of the budget's last change.
SELECT e.name, e.crossed_at,
       coalesce(r.crossed_at, CASE WHEN NOT coalesce(b.hard AND b.exceeded, false) THEN coalesce(c.changed_at, e.crossed_at) END),
       e.spent::text, e.amount::text, e.cause, e.cause_id
FROM taximeter.budget_crossings AS e
LEFT JOIN LATERAL (
    SELECT x.crossed_at FROM taximeter.budget_crossings AS x
    WHERE x.workspace_id = e.workspace_id AND x.name = e.name AND x.kind IN ('restored', 'exceeded') AND x.id > e.id
    ORDER BY x.id LIMIT 1) AS r ON true
LEFT JOIN taximeter.budgets AS b ON b.workspace_id = e.workspace_id AND b.name = e.name
LEFT JOIN LATERAL (
    SELECT max(w.changed_at) AS changed_at FROM taximeter.workspace_changes AS w
    WHERE w.workspace_id = e.workspace_id AND w.field = 'budget ' || e.name AND w.changed_at > e.crossed_at) AS c ON true
WHERE e.workspace_id = %(workspace_id)s AND e.kind = 'exceeded' AND e.hard
  AND (r.crossed_at >= %(since)s
       OR (r.crossed_at IS NULL
           AND (coalesce(b.hard AND b.exceeded, false) OR coalesce(c.changed_at, e.crossed_at) >= %(since)s)))
ORDER BY e.id DESC LIMIT %(limit)s

-- name: used_up
-- Takes: a workspace. Returns: its hard budgets that are used up, as its flag tells them.
SELECT name, amount::text, period, hours, user_id, tool, model, tag, tag_value,
       CASE WHEN period IN ('day', 'week', 'month') THEN due_at END
FROM taximeter.budgets WHERE workspace_id = %(workspace_id)s AND hard AND exceeded ORDER BY name

-- name: tell
-- Notes what a workspace's flag must say of budgets. Takes: the workspace, the text.
UPDATE taximeter.workspaces SET budgets = %(text)s WHERE workspace_id = %(workspace_id)s

-- name: lock
-- Locks workspaces and gives each a new version: the flag of whoever wrote before is older. Takes: their ids, sorted.
-- Locks: the rows of taximeter.workspaces, in the order given, as long as the plan is a nested loop, as debit_workspaces.sql does.
-- Returns: each workspace, its number of usages, and the moment of the change in microseconds.
UPDATE taximeter.workspaces AS w
SET version = w.version + 1, budgets = coalesce(w.budgets, '[]'),
    updated_at = greatest(clock_timestamp(), w.updated_at + interval '1 microsecond')
FROM unnest(%(workspace_ids)s::text[]) AS v (workspace_id)
WHERE w.workspace_id = v.workspace_id
RETURNING w.workspace_id, w.usage_count, (extract(epoch FROM w.updated_at) * 1000000)::bigint

-- name: due
-- Takes: the moment (NULL: now), and how many workspaces. Returns: workspaces with budgets whose period has ended. Locks: nothing.
SELECT DISTINCT workspace_id FROM taximeter.budgets
WHERE due_at <= coalesce(%(moment)s::timestamptz, clock_timestamp()) ORDER BY workspace_id LIMIT %(limit)s

-- name: due_in
-- Takes: workspaces and moments (microseconds). Returns: the budgets in these whose period has ended.
SELECT b.workspace_id, b.name FROM unnest(%(workspace_ids)s::text[], %(moments)s::bigint[]) AS v (workspace_id, moment)
JOIN taximeter.budgets AS b ON b.workspace_id = v.workspace_id
WHERE b.due_at <= to_timestamp(0) + v.moment * interval '1 microsecond'

-- name: forget
-- Deletes what rolling hours have left behind. Takes: workspaces, names and first buckets, arrays of one length.
DELETE FROM taximeter.budget_spending AS s
USING unnest(%(workspace_ids)s::text[], %(names)s::text[], %(window_starts)s::timestamptz[]) AS v (workspace_id, name, window_start)
WHERE s.workspace_id = v.workspace_id AND s.name = v.name AND s.bucket < v.window_start

-- name: window
-- Takes: a period, its hours, its zone and a moment (NULL: now). Returns: the first bucket of the period.
SELECT taximeter.budget_window(%(period)s, %(hours)s::integer, %(zone)s, coalesce(%(moment)s::timestamptz, clock_timestamp()))

-- name: zone
-- Takes: a name. Returns: a row where it is a time zone's.
SELECT 1 FROM pg_timezone_names WHERE name = %(zone)s

-- name: from_log
-- Sums up what usages of a workspace cost that count for a budget, by bucket: the truth that the counters must agree with.
-- Takes: the workspace; the usages after one number and up to another; the terms; since, the first bucket. What was repriced counts
-- with its last cost. The log's slices are by when a usage was recorded; none is recorded more than 31 days before it happened.
SELECT taximeter.budget_bucket(%(period)s, %(hours)s::integer, %(zone)s, u.occurred_at), sum(coalesce(r.new_cost, u.cost))::numeric(27,12)::text,
       count(*)
FROM taximeter.usages AS u
LEFT JOIN LATERAL (SELECT r.new_cost FROM taximeter.repriced_usages AS r
                   WHERE r.workspace_id = u.workspace_id AND r.seq = u.seq ORDER BY r.repricing DESC LIMIT 1) AS r ON true
WHERE u.workspace_id = %(workspace_id)s AND u.seq > %(after)s AND u.seq <= %(upto)s
  AND (%(period)s = 'total' OR (u.recorded_at >= %(since)s::timestamptz - interval '31 days'
       AND taximeter.budget_bucket(%(period)s, %(hours)s::integer, %(zone)s, u.occurred_at) >= %(since)s::timestamptz))
  AND (%(user)s::text IS NULL OR u.user_id = %(user)s) AND (%(tool)s::text IS NULL OR u.tool = %(tool)s)
  AND (%(model)s::text IS NULL OR u.model = %(model)s)
  AND (%(tag)s::text IS NULL OR u.tags ->> %(tag)s = %(tag_value)s)
GROUP BY 1

-- name: replace
-- Puts what was spent in the place of what was counted. Takes: the workspace, the name, and buckets, costs and usages, arrays of one
-- length.
WITH gone AS (
    DELETE FROM taximeter.budget_spending WHERE workspace_id = %(workspace_id)s AND name = %(name)s AND bucket <> ALL (%(buckets)s::timestamptz[])
)
INSERT INTO taximeter.budget_spending (workspace_id, name, bucket, cost, usages)
SELECT %(workspace_id)s, %(name)s, v.bucket, v.cost, v.usages
FROM unnest(%(buckets)s::timestamptz[], %(costs)s::numeric[], %(usages)s::bigint[]) AS v (bucket, cost, usages)
ON CONFLICT (workspace_id, name, bucket) DO UPDATE SET cost = excluded.cost, usages = excluded.usages

-- name: usage_count
-- Takes: the workspace. Returns: its number of usages; no row: it was never seen.
SELECT usage_count FROM taximeter.workspaces WHERE workspace_id = %(workspace_id)s

-- name: has_budgets
-- Takes: the workspace. Returns: a row where it has a budget.
SELECT 1 FROM taximeter.budgets WHERE workspace_id = %(workspace_id)s LIMIT 1
