-- Adds a run of a workspace's usages to its rollups and returns nothing.
-- Takes: workspace_id, first and last seq of the run, which follows on what is rolled up already; bands, the costs at
-- which a band begins; block_usages; names_max, how many pairs of tool and model a workspace's rollups name, and other, what
-- those beyond stand under.
-- Running totals go on from the last row of the same tool, model and band. Where that row itself grows, it is also what
-- the new totals started from, so they replace its own.
-- Locks: the rollups that it changes; the caller holds the workspace's row of rollup_progress, so nobody else does.
WITH named AS (
    SELECT u.tool, coalesce(u.model, '') AS model, width_bucket(u.cost, %(bands)s::numeric[])::smallint AS band,
           date_bin('15 minutes', u.recorded_at, 'epoch') AS slot, u.seq / %(block_usages)s::bigint AS block,
           count(*) AS usages, sum(u.cost) AS cost, min(u.seq) AS first_seq, max(u.seq) AS last_seq
    FROM taximeter.usages AS u
    WHERE u.workspace_id = %(workspace_id)s AND u.seq BETWEEN %(first)s AND %(last)s
    GROUP BY 1, 2, 3, 4, 5
), known AS MATERIALIZED (
    SELECT DISTINCT tool, model FROM taximeter.usage_names WHERE workspace_id = %(workspace_id)s AND model <> %(other)s
), admitted AS MATERIALIZED (
    SELECT tool, model FROM known
    UNION ALL
    (SELECT n.tool, n.model FROM named AS n
     WHERE NOT EXISTS (SELECT FROM known AS k WHERE k.tool = n.tool AND k.model = n.model)
     GROUP BY n.tool, n.model ORDER BY min(n.first_seq)
     LIMIT greatest(0, %(names_max)s::bigint - (SELECT count(*) FROM known)))
), made AS (
    SELECT CASE WHEN a.tool IS NOT NULL OR t.tool IS NOT NULL THEN n.tool ELSE %(other)s END AS tool,
           CASE WHEN a.tool IS NOT NULL THEN n.model ELSE %(other)s END AS model,
           n.band, n.slot, n.block, sum(n.usages)::bigint AS usages, sum(n.cost) AS cost,
           min(n.first_seq) AS first_seq, max(n.last_seq) AS last_seq
    FROM named AS n
    LEFT JOIN admitted AS a ON a.tool = n.tool AND a.model = n.model
    LEFT JOIN (SELECT DISTINCT tool FROM admitted) AS t ON t.tool = n.tool
    GROUP BY 1, 2, 3, 4, 5
), before AS (
    SELECT k.tool, k.model, k.band, l.usages_total, l.cost_total
    FROM (SELECT DISTINCT tool, model, band FROM made) AS k
    CROSS JOIN LATERAL (
        SELECT r.usages_total, r.cost_total FROM taximeter.usage_rollups AS r
        WHERE r.workspace_id = %(workspace_id)s AND r.tool = k.tool AND r.model = k.model AND r.band = k.band
        ORDER BY r.slot DESC, r.block DESC LIMIT 1
    ) AS l
), names AS (
    INSERT INTO taximeter.usage_names (workspace_id, tool, model, band)
    SELECT DISTINCT %(workspace_id)s, tool, model, band FROM made
    ON CONFLICT DO NOTHING
)
INSERT INTO taximeter.usage_rollups AS r
    (workspace_id, tool, model, band, slot, block, usages, cost, usages_total, cost_total, first_seq, last_seq)
SELECT %(workspace_id)s, m.tool, m.model, m.band, m.slot, m.block, m.usages, m.cost,
       coalesce(b.usages_total, 0) + sum(m.usages) OVER running, coalesce(b.cost_total, 0) + sum(m.cost) OVER running,
       m.first_seq, m.last_seq
FROM made AS m LEFT JOIN before AS b USING (tool, model, band)
WINDOW running AS (PARTITION BY m.tool, m.model, m.band ORDER BY m.slot, m.block)
ON CONFLICT (workspace_id, tool, model, band, slot, block) DO UPDATE
SET usages = r.usages + excluded.usages, cost = r.cost + excluded.cost,
    usages_total = excluded.usages_total, cost_total = excluded.cost_total, last_seq = excluded.last_seq
