-- Reads the next usages that match a filter, through the rollups: only stretches that hold a match are looked into.
-- Takes: workspace_id; tool, model (null: any), band (at least), since and until (slots), after and before, between which
-- seq must lie; cost_min, what the band stands for; limit, how many to return.
-- {order} is ASC or DESC. Every rollup holds a match of its tool, model and band, but for one that `after` or `before` cuts:
-- so the first limit + 1 of each lead to the first `limit` matches of all. A stretch has 1,024 usages at most.
-- Locks: nothing. Returns: the seqs of matches, in order.
WITH bounds AS MATERIALIZED (
    SELECT greatest(%(since)s, (SELECT date_bin('15 minutes', recorded_at, 'epoch') FROM taximeter.usages
                                WHERE workspace_id = %(workspace_id)s AND seq = %(after)s + 1)) AS since,
           least(%(until)s, (SELECT date_bin('15 minutes', recorded_at, 'epoch') + interval '15 minutes'
                             FROM taximeter.usages
                             WHERE workspace_id = %(workspace_id)s AND seq = %(before)s - 1)) AS until
), stretches AS MATERIALIZED (
    SELECT min(r.first_seq) AS first_seq, max(r.last_seq) AS last_seq
    FROM bounds AS b
    CROSS JOIN taximeter.usage_names AS k
    CROSS JOIN LATERAL (
        SELECT r.slot, r.block, r.first_seq, r.last_seq FROM taximeter.usage_rollups AS r
        WHERE r.workspace_id = %(workspace_id)s AND r.tool = k.tool AND r.model = k.model AND r.band = k.band
          AND r.slot >= b.since AND r.slot < b.until
          AND r.last_seq > %(after)s AND r.first_seq < %(before)s
        ORDER BY r.slot {order}, r.block {order} LIMIT %(limit)s + 1
    ) AS r
    WHERE k.workspace_id = %(workspace_id)s AND k.band >= %(band)s
      AND (%(tool)s::text IS NULL OR k.tool = %(tool)s) AND (%(model)s::text IS NULL OR k.model = %(model)s)
    GROUP BY r.slot, r.block ORDER BY r.slot {order}, r.block {order}
)
SELECT u.seq
FROM stretches AS s
CROSS JOIN LATERAL (
    SELECT seq FROM taximeter.usages
    WHERE workspace_id = %(workspace_id)s
      AND seq BETWEEN greatest(s.first_seq, %(after)s + 1) AND least(s.last_seq, %(before)s - 1)
      AND (%(tool)s::text IS NULL OR tool = %(tool)s) AND (%(model)s::text IS NULL OR coalesce(model, '') = %(model)s)
      AND (%(cost_min)s::numeric IS NULL OR cost >= %(cost_min)s)
    ORDER BY seq {order} LIMIT %(limit)s
) AS u
LIMIT %(limit)s
