-- Adds a run of a workspace's usages to the rollups of its users and tags and returns nothing.
-- Takes: workspace_id, first and last seq of the run, which follows on what is rolled up already; block_usages; user and tag,
-- what the label of a user is and how that of a tag begins; values_max and labels_max, how many values of a label and how
-- many labels are named; other, what those beyond stand under.
-- The value '' of a label is all usages that bear it. A label beyond labels_max has no values: it is counted as other.
-- Locks: the rollups that it changes; the caller holds the workspace's row of rollup_progress, so nobody else does.
WITH said AS MATERIALIZED (
    SELECT l.label, l.value, date_bin('15 minutes', u.recorded_at, 'epoch') AS slot,
           u.seq / %(block_usages)s::bigint AS block,
           count(*) AS usages, sum(u.cost) AS cost, min(u.seq) AS first_seq, max(u.seq) AS last_seq
    FROM taximeter.usages AS u
    CROSS JOIN LATERAL (
        SELECT %(user)s::text AS label, u.user_id AS value WHERE u.user_id IS NOT NULL
        UNION ALL
        SELECT %(tag)s::text || t.key, t.value FROM json_each_text(u.tags) AS t
    ) AS l
    WHERE u.workspace_id = %(workspace_id)s AND u.seq BETWEEN %(first)s AND %(last)s
      AND (u.user_id IS NOT NULL OR u.tags IS NOT NULL)
    GROUP BY 1, 2, 3, 4
), pairs AS MATERIALIZED (
    SELECT s.label, s.value, min(s.first_seq) AS first_seq, bool_or(t.value IS NOT NULL) AS is_known
    FROM said AS s
    LEFT JOIN taximeter.label_totals AS t
        ON t.workspace_id = %(workspace_id)s AND t.label = s.label AND t.value = s.value
    GROUP BY 1, 2
), labels AS MATERIALIZED (
    SELECT label, is_known, is_known OR row_number() OVER (PARTITION BY is_known ORDER BY first_seq)
               <= %(labels_max)s::bigint - (SELECT count(*) FROM taximeter.label_totals
                                            WHERE workspace_id = %(workspace_id)s AND value = '') AS is_named
    FROM (
        SELECT p.label, min(p.first_seq) AS first_seq,
               EXISTS (SELECT FROM taximeter.label_totals AS t
                       WHERE t.workspace_id = %(workspace_id)s AND t.label = p.label AND t.value = '') AS is_known
        FROM pairs AS p GROUP BY 1
    ) AS l
), named AS MATERIALIZED (
    SELECT label, value FROM pairs WHERE is_known
    UNION ALL
    SELECT label, value FROM (
        SELECT p.label, p.value, row_number() OVER (PARTITION BY p.label ORDER BY p.first_seq) AS place
        FROM pairs AS p WHERE NOT p.is_known
    ) AS n
    CROSS JOIN LATERAL (SELECT count(*) AS values FROM taximeter.label_totals AS t
                        WHERE t.workspace_id = %(workspace_id)s AND t.label = n.label
                          AND t.value NOT IN ('', %(other)s)) AS c
    WHERE n.place <= %(values_max)s::bigint - c.values
), made AS MATERIALIZED (
    SELECT CASE WHEN l.is_named THEN s.label ELSE %(other)s END AS label,
           CASE WHEN v.every OR NOT l.is_named THEN '' WHEN n.value IS NULL THEN %(other)s ELSE n.value END AS value,
           s.slot, s.block, sum(s.usages)::bigint AS usages, sum(s.cost) AS cost,
           min(s.first_seq) AS first_seq, max(s.last_seq) AS last_seq
    FROM said AS s
    JOIN labels AS l USING (label)
    LEFT JOIN named AS n USING (label, value)
    CROSS JOIN (VALUES (true), (false)) AS v (every)
    WHERE l.is_named OR v.every
    GROUP BY 1, 2, 3, 4
), running AS (
    SELECT m.*, coalesce(t.usages, 0) + sum(m.usages) OVER w AS usages_total,
           coalesce(t.cost, 0) + sum(m.cost) OVER w AS cost_total
    FROM made AS m
    LEFT JOIN taximeter.label_totals AS t
        ON t.workspace_id = %(workspace_id)s AND t.label = m.label AND t.value = m.value
    WINDOW w AS (PARTITION BY m.label, m.value ORDER BY m.slot, m.block)
), totals AS (
    INSERT INTO taximeter.label_totals AS t (workspace_id, label, value, usages, cost, first_slot, last_slot)
    SELECT %(workspace_id)s, label, value, sum(usages), sum(cost), min(slot), max(slot) FROM made GROUP BY label, value
    ON CONFLICT (workspace_id, label, value) DO UPDATE
    SET usages = t.usages + excluded.usages, cost = t.cost + excluded.cost, last_slot = excluded.last_slot
)
INSERT INTO taximeter.label_rollups
    (workspace_id, label, value, slot, block, usages_total, cost_total, first_seq, last_seq)
SELECT %(workspace_id)s, label, value, slot, block, usages_total, cost_total, first_seq, last_seq FROM running
ON CONFLICT (workspace_id, label, value, slot, block) DO UPDATE
SET usages_total = excluded.usages_total, cost_total = excluded.cost_total, last_seq = excluded.last_seq
