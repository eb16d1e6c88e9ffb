-- Adds up usages by the rollups' running totals: what fell into a period is the difference of two rows of each tool, model
-- and band, whatever the length of the period. Locks: nothing.

-- name: filtered
-- Takes: workspace_id, tool, model (null: any), band (at least), since and until (slots).
-- Returns: how many usages match, and what they cost.
SELECT coalesce(sum(u.usages_total - coalesce(s.usages_total, 0)), 0)::bigint,
       coalesce(sum(u.cost_total - coalesce(s.cost_total, 0)), 0)::numeric(27,12)::text
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
WHERE k.workspace_id = %(workspace_id)s AND k.band >= %(band)s
  AND (%(tool)s::text IS NULL OR k.tool = %(tool)s) AND (%(model)s::text IS NULL OR k.model = %(model)s)

-- name: at_edges
-- Takes: workspace_id, edges (quarter-hours). {name} is tool or model.
-- One look-up for each edge and each tool, model and band. A zone's hours and days begin at quarter-hours of UTC, as
-- slots do. Returns: the edge's place, the name, and the running totals of usages and cost before that edge.
SELECT e.place, k.{name}, sum(r.usages_total)::bigint, sum(r.cost_total)::numeric(27,12)::text
FROM unnest(%(edges)s::timestamptz[]) WITH ORDINALITY AS e (moment, place)
CROSS JOIN taximeter.usage_names AS k
CROSS JOIN LATERAL (
    SELECT r.usages_total, r.cost_total FROM taximeter.usage_rollups AS r
    WHERE r.workspace_id = %(workspace_id)s AND r.tool = k.tool AND r.model = k.model AND r.band = k.band
      AND r.slot < e.moment
    ORDER BY r.slot DESC, r.block DESC LIMIT 1
) AS r
WHERE k.workspace_id = %(workspace_id)s
GROUP BY 1, 2
