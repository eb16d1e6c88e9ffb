-- Adds up what users and tags cost, by the running totals of their rollups. Locks: nothing.

-- name: labels
-- Takes: workspace_id, other. Returns: each label that a workspace's usages bear, and whether some of its values are
-- counted together.
SELECT l.label, EXISTS (SELECT FROM taximeter.label_totals AS t
                        WHERE t.workspace_id = %(workspace_id)s AND t.label = l.label AND t.value = %(other)s)
FROM taximeter.label_totals AS l WHERE l.workspace_id = %(workspace_id)s AND l.value = '' ORDER BY l.label

-- name: named
-- Takes: workspace_id, label, value. Returns a row where the rollups name the value.
SELECT 1 FROM taximeter.label_totals
WHERE workspace_id = %(workspace_id)s AND label = %(label)s AND value = %(value)s

-- name: spent_since
-- What values of a label cost since a moment: the difference of the total now and the total then. A value that was not used
-- since is not looked up, nor is the past of one that was first used since.
-- Takes: workspace_id, label, since (a slot), skipped and limit: which values, of those whose totals are largest.
-- Returns: the value, what it cost in all and what it cost since, largest total first.
SELECT t.value, t.cost::text, (t.cost - coalesce(b.cost_total, 0))::text
FROM (
    SELECT value, cost, first_slot FROM taximeter.label_totals
    WHERE workspace_id = %(workspace_id)s AND label = %(label)s AND value <> '' AND last_slot >= %(since)s
    ORDER BY cost DESC, value OFFSET %(skipped)s LIMIT %(limit)s
) AS t
LEFT JOIN LATERAL (
    SELECT r.cost_total FROM taximeter.label_rollups AS r
    WHERE r.workspace_id = %(workspace_id)s AND r.label = %(label)s AND r.value = t.value AND r.slot < %(since)s
      AND t.first_slot < %(since)s
    ORDER BY r.slot DESC, r.block DESC LIMIT 1
) AS b ON true
ORDER BY t.cost DESC, t.value

-- name: at_edges
-- Takes: workspace_id, label, values, edges (slots).
-- Returns: the edge's place, the value, and its running totals of usages and cost before that edge.
SELECT e.place, v.value, r.usages_total, r.cost_total::text
FROM unnest(%(edges)s::timestamptz[]) WITH ORDINALITY AS e (moment, place)
CROSS JOIN unnest(%(values)s::text[]) AS v (value)
CROSS JOIN LATERAL (
    SELECT r.usages_total, r.cost_total FROM taximeter.label_rollups AS r
    WHERE r.workspace_id = %(workspace_id)s AND r.label = %(label)s AND r.value = v.value AND r.slot < e.moment
    ORDER BY r.slot DESC, r.block DESC LIMIT 1
) AS r

-- name: stretches
-- The next stretches of the log that hold a usage with a label's value, 1,024 usages each at most.
-- Takes: workspace_id, label, value; since and until (slots), after and before, between which seq must lie; limit.
-- {order} is ASC or DESC. Returns: the first and the last seq of each.
WITH bounds AS MATERIALIZED (
    SELECT greatest(%(since)s, (SELECT date_bin('15 minutes', recorded_at, 'epoch') FROM taximeter.usages
                                WHERE workspace_id = %(workspace_id)s AND seq = %(after)s + 1)) AS since,
           least(%(until)s, (SELECT date_bin('15 minutes', recorded_at, 'epoch') + interval '15 minutes'
                             FROM taximeter.usages
                             WHERE workspace_id = %(workspace_id)s AND seq = %(before)s - 1)) AS until
)
SELECT r.first_seq, r.last_seq
FROM bounds AS b
CROSS JOIN LATERAL (
    SELECT r.slot, r.block, r.first_seq, r.last_seq FROM taximeter.label_rollups AS r
    WHERE r.workspace_id = %(workspace_id)s AND r.label = %(label)s AND r.value = %(value)s
      AND r.slot >= b.since AND r.slot < b.until AND r.last_seq > %(after)s AND r.first_seq < %(before)s
    ORDER BY r.slot {order}, r.block {order} LIMIT %(limit)s
) AS r

-- name: within
-- Matches within stretches. Takes: workspace_id, firsts and lasts (of the stretches, in order); after and before; tool,
-- model, cost_min, user_id, tag_key with tag_value (null: any); limit. {order} is that of the stretches.
-- Returns: seq and cost of matches, in order.
SELECT u.seq, u.cost::text
FROM unnest(%(firsts)s::bigint[], %(lasts)s::bigint[]) AS s (first_seq, last_seq)
CROSS JOIN LATERAL (
    SELECT seq, cost FROM taximeter.usages
    WHERE workspace_id = %(workspace_id)s
      AND seq BETWEEN greatest(s.first_seq, %(after)s + 1) AND least(s.last_seq, %(before)s - 1)
      AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s)
      AND (%(tag_key)s::text IS NULL OR tags ->> %(tag_key)s = %(tag_value)s)
      AND (%(tool)s::text IS NULL OR tool = %(tool)s) AND (%(model)s::text IS NULL OR coalesce(model, '') = %(model)s)
      AND (%(cost_min)s::numeric IS NULL OR cost >= %(cost_min)s)
      AND (%(low)s::text IS NULL OR starts_with(event_id, %(low)s))
    ORDER BY seq {order} LIMIT %(limit)s
) AS u
LIMIT %(limit)s
