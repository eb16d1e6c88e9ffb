-- Makes the statements of a workspace's months from its log; see taximeter_db.statements.

-- name: zone
-- Takes: zone. Locks: nothing. Returns: a row if it is a name of a time zone.
SELECT 1 FROM pg_timezone_names WHERE name = %(zone)s

-- name: month
-- Takes: month (its first day), zone. Locks: nothing. Returns: when it begins, when it ends, and the present moment.
SELECT %(month)s::date::timestamp AT TIME ZONE %(zone)s,
       (%(month)s::date + interval '1 month') AT TIME ZONE %(zone)s, clock_timestamp()

-- name: first_month
-- Takes: workspace_id, zone. Locks: nothing. Returns: the first day of the month of the first entry, NULL without any.
SELECT date_trunc('month', least(
    (SELECT recorded_at FROM taximeter.usages WHERE workspace_id = %(workspace_id)s AND seq = 1),
    (SELECT recorded_at FROM taximeter.payments WHERE workspace_id = %(workspace_id)s AND seq = 1)
) AT TIME ZONE %(zone)s)::date

-- name: pass
-- Makes sure that whatever is booked from now on is recorded later than a moment that is past: booking's recorded_at always
-- lies after updated_at. Changes nothing where a later booking has seen to it.
-- Takes: workspace_id, moment. Locks: the workspace's row, if it was idle since.
UPDATE taximeter.workspaces SET updated_at = %(moment)s
WHERE workspace_id = %(workspace_id)s AND updated_at < %(moment)s AND clock_timestamp() >= %(moment)s

-- name: payment_seq_at
-- Finds a workspace's first payment that was recorded at a moment or after it, as seq_at.sql finds usages.
-- Takes: workspace_id, moment. Locks: nothing. Returns: its seq, the last seq + 1 where there is none; NULL: no workspace.
WITH RECURSIVE search (low, high) AS (
    SELECT 1::bigint, w.payment_count + 1 FROM taximeter.workspaces AS w WHERE w.workspace_id = %(workspace_id)s
    UNION ALL
    SELECT CASE WHEN probe.recorded_at < %(moment)s THEN middle.seq + 1 ELSE s.low END,
           CASE WHEN probe.recorded_at < %(moment)s THEN s.high ELSE middle.seq END
    FROM search AS s
    CROSS JOIN LATERAL (SELECT (s.low + s.high) / 2 AS seq OFFSET 0) AS middle
    CROSS JOIN LATERAL (SELECT p.recorded_at FROM taximeter.payments AS p
                        WHERE p.workspace_id = %(workspace_id)s AND p.seq = middle.seq) AS probe
    WHERE s.low < s.high
)
SELECT max(low) FROM search

-- name: balance
-- Takes: workspace_id, usage_last and payment_last, since (nothing of them was recorded before). Locks: nothing.
-- Returns: the balance after whichever of the two was booked last; no row if there is neither.
SELECT balance_after::text FROM (
    SELECT entry, balance_after FROM taximeter.usages
    WHERE workspace_id = %(workspace_id)s AND seq = %(usage_last)s AND recorded_at >= %(since)s
    UNION ALL
    SELECT entry, balance_after FROM taximeter.payments
    WHERE workspace_id = %(workspace_id)s AND seq = %(payment_last)s AND recorded_at >= %(since)s
) AS e ORDER BY entry DESC LIMIT 1

-- name: kinds
-- Takes: workspace_id, payment_first and payment_last. Locks: nothing. Returns: kind, how many payments, their sum.
SELECT kind, count(*), sum(amount)::numeric(27,12)::text FROM taximeter.payments
WHERE workspace_id = %(workspace_id)s AND seq BETWEEN %(payment_first)s AND %(payment_last)s
GROUP BY 1 ORDER BY 1

-- name: rolled_up
-- How far the log and its rollups reach, and what the rollups hold of a span, all of one moment.
-- Takes: workspace_id, since and until (quarter-hours), user (the label of users). Locks: nothing.
-- Returns: one row 'state': usages and payments that there are, and how far the rollups of names and of labels reach; rows
-- 'name': tool, model, usages, cost; rows 'user': user, '', usages, cost.
SELECT 'state', w.usage_count::text, w.payment_count::text, coalesce(p.seq, 0), coalesce(p.labels_seq, 0)::text
FROM taximeter.workspaces AS w LEFT JOIN taximeter.rollup_progress AS p USING (workspace_id)
WHERE w.workspace_id = %(workspace_id)s
UNION ALL
SELECT 'name', k.tool, k.model, sum(u.usages_total - coalesce(s.usages_total, 0))::bigint,
       sum(u.cost_total - coalesce(s.cost_total, 0))::numeric(27,12)::text
FROM taximeter.usage_names AS k
CROSS JOIN LATERAL (
    SELECT r.usages_total, r.cost_total FROM taximeter.usage_rollups AS r
    WHERE r.workspace_id = %(workspace_id)s AND r.tool = k.tool AND r.model = k.model AND r.band = k.band
      AND r.slot < %(until)s
    ORDER BY r.slot DESC, r.block DESC LIMIT 1
) AS u
LEFT JOIN LATERAL (
    SELECT r.usages_total, r.cost_total FROM taximeter.usage_rollups AS r
    WHERE r.workspace_id = %(workspace_id)s AND r.tool = k.tool AND r.model = k.model AND r.band = k.band
      AND r.slot < %(since)s
    ORDER BY r.slot DESC, r.block DESC LIMIT 1
) AS s ON true
WHERE k.workspace_id = %(workspace_id)s
GROUP BY 2, 3 HAVING sum(u.usages_total - coalesce(s.usages_total, 0)) > 0
UNION ALL
SELECT 'user', t.value, '', u.usages_total - coalesce(s.usages_total, 0),
       (u.cost_total - coalesce(s.cost_total, 0))::numeric(27,12)::text
FROM taximeter.label_totals AS t
CROSS JOIN LATERAL (
    SELECT r.usages_total, r.cost_total FROM taximeter.label_rollups AS r
    WHERE r.workspace_id = %(workspace_id)s AND r.label = t.label AND r.value = t.value AND r.slot < %(until)s
    ORDER BY r.slot DESC, r.block DESC LIMIT 1
) AS u
LEFT JOIN LATERAL (
    SELECT r.usages_total, r.cost_total FROM taximeter.label_rollups AS r
    WHERE r.workspace_id = %(workspace_id)s AND r.label = t.label AND r.value = t.value AND r.slot < %(since)s
    ORDER BY r.slot DESC, r.block DESC LIMIT 1
) AS s ON true
WHERE t.workspace_id = %(workspace_id)s AND t.label = %(user)s AND t.value <> ''
  AND t.first_slot < %(until)s AND t.last_slot >= %(since)s
  AND u.usages_total > coalesce(s.usages_total, 0)

-- name: logged
-- Adds up a run of the log itself. Takes: workspace_id, first and last (seq), since (nothing of it was recorded before).
-- Locks: nothing. Returns: 'name', tool, model, usages, cost; and 'user', user, '', usages, cost.
SELECT CASE WHEN grouping(u.user_id) = 1 THEN 'name' ELSE 'user' END,
       CASE WHEN grouping(u.user_id) = 1 THEN u.tool ELSE u.user_id END,
       CASE WHEN grouping(u.user_id) = 1 THEN coalesce(u.model, '') ELSE '' END,
       count(*), sum(u.cost)::numeric(27,12)::text
FROM taximeter.usages AS u
WHERE u.workspace_id = %(workspace_id)s AND u.seq BETWEEN %(first)s AND %(last)s AND u.recorded_at >= %(since)s
GROUP BY GROUPING SETS ((u.tool, u.model), (u.user_id))
HAVING grouping(u.user_id) = 1 OR u.user_id IS NOT NULL

-- name: due
-- Takes: after (an id), limit. Locks: nothing.
-- Returns: ids of workspaces with an entry, of which a month that is over is not closed, in order.
SELECT w.workspace_id FROM taximeter.workspaces AS w
LEFT JOIN taximeter.statement_zones AS z USING (workspace_id)
CROSS JOIN LATERAL (SELECT date_trunc('month', clock_timestamp() AT TIME ZONE coalesce(z.zone, 'UTC')) AS present OFFSET 0) AS m
WHERE w.workspace_id > %(after)s AND (w.usage_count > 0 OR w.payment_count > 0)
  AND coalesce((SELECT s.month + interval '1 month' < m.present FROM taximeter.statements AS s
                WHERE s.workspace_id = w.workspace_id ORDER BY s.number DESC LIMIT 1),
               least((SELECT recorded_at FROM taximeter.usages AS u WHERE u.workspace_id = w.workspace_id AND u.seq = 1),
                     (SELECT recorded_at FROM taximeter.payments AS p WHERE p.workspace_id = w.workspace_id AND p.seq = 1))
               AT TIME ZONE coalesce(z.zone, 'UTC') < m.present)
ORDER BY w.workspace_id LIMIT %(limit)s
