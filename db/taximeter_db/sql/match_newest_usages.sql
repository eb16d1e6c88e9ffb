-- Reads usages that match the rest of a filter, where the rollups and the sorted ids do not reach. Locks: nothing.

-- name: ids
-- The newest usages, whose run of sorted ids is not whole yet.
-- Takes: workspace_id; after and before, between which seq lies; low and high, between which (high excluded) the ids lie.
-- Returns: the seqs of matches.
SELECT seq FROM taximeter.usages
WHERE workspace_id = %(workspace_id)s AND seq > %(after)s AND seq < %(before)s
  AND event_id COLLATE "C" >= %(low)s AND event_id COLLATE "C" < %(high)s

-- name: among
-- Takes: workspace_id, seqs; since, until, tool, model and cost_min (null: any). Returns: seq and cost of matches.
SELECT seq, cost::text FROM taximeter.usages
WHERE workspace_id = %(workspace_id)s AND seq = ANY(%(seqs)s)
  AND recorded_at >= %(since)s AND recorded_at < %(until)s
  AND (%(tool)s::text IS NULL OR tool = %(tool)s) AND (%(model)s::text IS NULL OR coalesce(model, '') = %(model)s)
  AND (%(cost_min)s::numeric IS NULL OR cost >= %(cost_min)s)
