-- Reads the numbers of usages whose id begins with given characters, from the sorted pages, run by run.
-- Takes: workspace_id; low and high, between which (high excluded) the ids lie; after and before, between which seq must lie;
-- first_run and last_run, limit. {order} is ASC or DESC, {runs} a series of runs in that order.
-- A run costs two index look-ups unless it holds a match, and the limit ends the reading.
-- Locks: nothing. Returns: the seqs of matches, in order.
SELECT m.seq
FROM {runs} AS r (run)
CROSS JOIN LATERAL (
    SELECT i.seq
    FROM taximeter.usage_id_pages AS p
    CROSS JOIN LATERAL unnest(p.ids, p.seqs) AS i (id, seq)
    WHERE p.workspace_id = %(workspace_id)s AND p.run = r.run AND p.low_id < %(high)s AND p.high_id >= %(low)s
      AND p.low_id >= coalesce((SELECT max(f.low_id) FROM taximeter.usage_id_pages AS f
                                WHERE f.workspace_id = %(workspace_id)s AND f.run = r.run AND f.low_id <= %(low)s), '')
      AND i.id >= %(low)s AND i.id < %(high)s AND i.seq > %(after)s AND i.seq < %(before)s
    ORDER BY i.seq {order} LIMIT %(limit)s
) AS m
LIMIT %(limit)s
