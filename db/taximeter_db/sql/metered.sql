-- What the log says of some providers' models by the day on which they were used, in UTC, for `taximeter reconcile`.
-- Locks: nothing. Takes: providers, the first day and the day after the last. A usage is recorded after it happened, or a
-- little before where a producer's clock runs ahead.

-- name: planning
-- Under row security a query must fail instead of leaving rows out.
SELECT set_config('row_security', 'off', true)

-- name: costs
-- Returns: day, model, usages, and what they cost now, as the newest repricing has it.
SELECT (u.occurred_at AT TIME ZONE 'UTC')::date, coalesce(u.model, ''), count(*), trim_scale(sum(coalesce(r.new_cost, u.cost)))::text
FROM taximeter.usages AS u
LEFT JOIN (SELECT DISTINCT ON (workspace_id, seq) workspace_id, seq, new_cost
           FROM taximeter.repriced_usages ORDER BY workspace_id, seq, repricing DESC) AS r USING (workspace_id, seq)
WHERE u.provider = ANY(%(providers)s) AND u.occurred_at >= %(start)s AND u.occurred_at < %(end)s
  AND u.recorded_at >= %(start)s::timestamptz - interval '7 days'
GROUP BY 1, 2

-- name: quantities
-- Returns: day, model, unit and quantity.
SELECT (u.occurred_at AT TIME ZONE 'UTC')::date, coalesce(u.model, ''), q.key, trim_scale(sum(q.value::numeric))::text
FROM taximeter.usages AS u CROSS JOIN LATERAL json_each_text(u.quantities) AS q
WHERE u.provider = ANY(%(providers)s) AND u.occurred_at >= %(start)s AND u.occurred_at < %(end)s
  AND u.recorded_at >= %(start)s::timestamptz - interval '7 days'
GROUP BY 1, 2, 3
