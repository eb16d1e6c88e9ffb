-- Reads the next usages that match a filter, through the rollups: only slots that hold a match are looked into.
-- Takes: workspace_id; tool, model (null: any), since and until (slots), cost_min (null: any); after and before, between
-- which seq must lie; slots and limit, how many to look at and to return.
-- {order} is ASC or DESC. Slots of a workspace do not overlap in seq, so reading slot by slot keeps the order, and
-- the limit ends the reading as soon as the page is full.
-- Locks: nothing. Returns: the seqs of matches, and the bound of the last slot looked into.
WITH slots AS MATERIALIZED (
    SELECT min(first_seq) AS first_seq, max(last_seq) AS last_seq
    FROM taximeter.usage_rollups
    WHERE workspace_id = %(workspace_id)s
      AND slot >= %(since)s AND slot < %(until)s
      AND (%(tool)s::text IS NULL OR tool = %(tool)s) AND (%(model)s::text IS NULL OR model = %(model)s)
      AND (%(cost_min)s::numeric IS NULL OR cost_max >= %(cost_min)s)
      AND last_seq > %(after)s AND first_seq < %(before)s
    GROUP BY slot ORDER BY slot {order} LIMIT %(slots)s
)
SELECT u.seq
FROM slots AS s
CROSS JOIN LATERAL (
    SELECT seq FROM taximeter.usages
    WHERE workspace_id = %(workspace_id)s
      AND seq BETWEEN greatest(s.first_seq, %(after)s + 1) AND least(s.last_seq, %(before)s - 1)
      AND (%(tool)s::text IS NULL OR tool = %(tool)s) AND (%(model)s::text IS NULL OR coalesce(model, '') = %(model)s)
      AND (%(cost_min)s::numeric IS NULL OR cost >= %(cost_min)s)
    ORDER BY seq {order} LIMIT %(limit)s
) AS u
LIMIT %(limit)s
