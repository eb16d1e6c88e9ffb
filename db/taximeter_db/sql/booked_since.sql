-- Counts the usages of a selection that were booked since a moment under a revision below `below`. Locks: nothing.
SELECT count(*) FROM taximeter.usages AS u
WHERE u.recorded_at >= %(booked_since)s AND u.occurred_at >= %(since)s AND (%(until)s::timestamptz IS NULL OR u.occurred_at < %(until)s)
  AND (%(tool)s::text IS NULL OR u.tool = %(tool)s) AND abs(u.price_version) < %(below)s
  AND (%(workspace)s::text IS NULL OR u.workspace_id = %(workspace)s)
