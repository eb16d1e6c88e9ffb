-- What `taximeter verify` compares of budgets: what was counted for each with what the log says. Locks: nothing; the caller's
-- snapshot.

-- name: workspaces
-- Returns: the workspaces that have budgets.
SELECT DISTINCT workspace_id FROM taximeter.budgets ORDER BY workspace_id

-- name: differing
-- Recounts the budgets of one workspace in one pass over its usages. Takes: the workspace. Returns: of each budget that was
-- counted otherwise its name and, of the first slice of time that differs, its start, and cost and number of usages as counted
-- and as the log says.
-- What was repriced counts with its last cost. Rolling hours keep nothing older than themselves, by the time of the workspace's last
-- change: they are compared from two minutes after that. The log's slices are by when a usage was recorded; none is
-- recorded more than 31 days before it happened.
WITH known AS MATERIALIZED (
    SELECT b.*, CASE WHEN b.period <> 'hours' THEN b.counted_from
                     ELSE greatest(b.counted_from,
                                   taximeter.budget_window(b.period, b.hours, b.zone,
                                                           greatest(now(), w.updated_at) + interval '2 minutes')) END AS since
    FROM taximeter.budgets AS b JOIN taximeter.workspaces AS w USING (workspace_id)
    WHERE b.workspace_id = %(workspace_id)s
), logged AS (
    SELECT b.name, k.bucket, sum(coalesce(r.new_cost, u.cost)) AS cost, count(*) AS usages
    FROM taximeter.usages AS u
    LEFT JOIN LATERAL (SELECT r.new_cost FROM taximeter.repriced_usages AS r
                       WHERE r.workspace_id = u.workspace_id AND r.seq = u.seq ORDER BY r.repricing DESC LIMIT 1) AS r ON true
    CROSS JOIN LATERAL unnest(ARRAY['', 'user:' || u.user_id, 'tool:' || u.tool, 'model:' || u.model]
                              || ARRAY(SELECT 'tag:' || t.key || '=' || t.value FROM json_each_text(u.tags) AS t))
               AS v (selector)
    JOIN known AS b ON b.selector = v.selector
    CROSS JOIN LATERAL (SELECT taximeter.budget_bucket(b.period, b.hours, b.zone, u.occurred_at) AS bucket) AS k
    WHERE u.workspace_id = %(workspace_id)s
      AND u.recorded_at >= (SELECT min(b.since) FROM known AS b) - interval '31 days' AND k.bucket >= b.since
      AND (b.user_id IS NULL OR b.user_id = u.user_id) AND (b.tool IS NULL OR b.tool = u.tool)
      AND (b.model IS NULL OR b.model = u.model) AND (b.tag IS NULL OR u.tags ->> b.tag = b.tag_value)
    GROUP BY 1, 2
), counted AS (
    SELECT s.name, s.bucket, s.cost, s.usages FROM taximeter.budget_spending AS s
    JOIN known AS b ON b.name = s.name
    WHERE s.workspace_id = %(workspace_id)s AND s.bucket >= b.since
)
SELECT DISTINCT ON (name) name, bucket, coalesce(c.cost, 0)::numeric(27,12)::text, coalesce(c.usages, 0)::bigint,
       coalesce(l.cost, 0)::numeric(27,12)::text, coalesce(l.usages, 0)::bigint
FROM counted AS c FULL JOIN logged AS l USING (name, bucket)
WHERE (coalesce(c.cost, 0), coalesce(c.usages, 0)) <> (coalesce(l.cost, 0), coalesce(l.usages, 0))
ORDER BY name, bucket
