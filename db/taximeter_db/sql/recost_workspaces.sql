-- Finds the workspaces with usages of a selection that were priced by a revision below `below`. Locks: nothing.
-- Takes: floor, before which no usage of the selection was recorded, so that whole partitions are left out.
-- Returns: workspace, its first such seq, and how many there are.
SELECT u.workspace_id, min(u.seq), count(*) FROM taximeter.usages AS u
WHERE u.recorded_at >= %(floor)s AND u.occurred_at >= %(since)s AND (%(until)s::timestamptz IS NULL OR u.occurred_at < %(until)s)
  AND (%(tool)s::text IS NULL OR u.tool = %(tool)s) AND abs(u.price_version) < %(below)s
  AND (%(workspace)s::text IS NULL OR u.workspace_id = %(workspace)s)
GROUP BY u.workspace_id ORDER BY u.workspace_id
