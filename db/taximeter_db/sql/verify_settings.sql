-- What `taximeter verify` compares beside the log: the price book, the limits and the rollups.
-- Locks: nothing; the caller's snapshot.

-- name: prices
-- Returns: the first revision of the price book that is not what its link was made of, or that is missing; or none.
WITH book AS (
    SELECT revision, l.link, lag(l.link, 1, ''::bytea) OVER (ORDER BY revision) AS link_before, r.revision IS NULL AS is_gone
    FROM taximeter.price_revisions AS r FULL JOIN taximeter.price_links AS l USING (revision)
), strays AS (
    SELECT revision FROM taximeter.price_entries UNION SELECT revision FROM taximeter.price_aliases
    EXCEPT SELECT revision FROM taximeter.price_revisions
)
SELECT min(revision) FROM (
    SELECT revision FROM book
    WHERE is_gone OR link IS DISTINCT FROM sha256(link_before || taximeter.price_content(revision))
    UNION ALL SELECT revision FROM strays
) AS wrong

-- name: limits
-- Returns: limits that are not what the log of changes says of their last change: workspace, field, stored, logged.
WITH last_changes AS (
    SELECT DISTINCT ON (workspace_id, field) workspace_id, field, value_after
    FROM taximeter.workspace_changes WHERE field IN ('minimum', 'low') ORDER BY workspace_id, field, id DESC
), limits AS (
    SELECT c.workspace_id, c.field, c.value_after,
           trim_scale(CASE c.field WHEN 'minimum' THEN w.minimum_balance ELSE w.low_balance_threshold END)::text AS stored
    FROM last_changes AS c JOIN taximeter.workspaces AS w USING (workspace_id)
)
SELECT workspace_id, field, stored, value_after FROM limits WHERE stored IS DISTINCT FROM value_after ORDER BY 1, 2

-- name: limits_changed
-- Takes: a moment. Returns: changes of limits since then, with a little room for transactions that were under way: workspace,
-- field, value before.
SELECT workspace_id, field, value_before FROM taximeter.workspace_changes
WHERE field IN ('minimum', 'low') AND value_before IS NOT NULL AND changed_at > %(since)s::timestamptz - interval '10 minutes'

-- name: rollups
-- Returns: workspaces whose rollups do not add up to their log as far as it is rolled up.
WITH sums AS (
    SELECT workspace_id, sum(usages) AS usages, sum(cost) AS cost FROM taximeter.usage_rollups GROUP BY 1
)
SELECT workspace_id FROM taximeter.rollup_progress AS p
FULL JOIN sums AS s USING (workspace_id)
LEFT JOIN LATERAL (
    SELECT u.entry - u.seq AS payments, u.balance_after FROM taximeter.usages AS u
    WHERE u.workspace_id = p.workspace_id AND u.seq = p.seq LIMIT 1
) AS u ON true
LEFT JOIN LATERAL (
    SELECT coalesce(sum(y.amount), 0) AS paid FROM taximeter.payments AS y
    WHERE y.workspace_id = p.workspace_id AND y.seq <= u.payments
) AS y ON true
WHERE coalesce(s.usages, 0) <> coalesce(p.seq, 0) OR coalesce(s.cost, 0) IS DISTINCT FROM coalesce(y.paid - u.balance_after, 0)
ORDER BY 1
