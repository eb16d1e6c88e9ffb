-- Copies a window of a log out as CSV, for exports of any size. {cells} are the columns' expressions, {order} is ASC or
-- DESC. Take: workspace_id, first and last seq. Locks: nothing. Return: the rows, in order.

-- name: usages
-- Takes also: since, until, tool, model, cost_min, low (the start of the id), user_id, tag_key with tag_value (null: any).
COPY (
    SELECT {cells} FROM taximeter.usages
    WHERE workspace_id = %(workspace_id)s AND seq BETWEEN %(first)s AND %(last)s
    AND recorded_at >= %(since)s AND recorded_at < %(until)s
    AND (%(tool)s::text IS NULL OR tool = %(tool)s) AND (%(model)s::text IS NULL OR coalesce(model, '') = %(model)s)
    AND (%(cost_min)s::numeric IS NULL OR cost >= %(cost_min)s)
    AND (%(low)s::text IS NULL OR starts_with(event_id, %(low)s))
    AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s)
    AND (%(tag_key)s::text IS NULL OR tags ->> %(tag_key)s = %(tag_value)s)
    ORDER BY seq {order}
) TO STDOUT (FORMAT csv)

-- name: payments
COPY (
    SELECT {cells} FROM taximeter.payments
    WHERE workspace_id = %(workspace_id)s AND seq BETWEEN %(first)s AND %(last)s
    ORDER BY seq {order}
) TO STDOUT (FORMAT csv)

-- name: text_cell
-- A text with an apostrophe wherever a spreadsheet would see a formula begin. Takes: signs, cuts, danger.
-- The regular expression runs only where it may find something.
CASE WHEN position(left({text}, 1) IN %(signs)s) > 0 OR translate({text}, %(cuts)s, '') <> {text}
THEN regexp_replace({text}, %(danger)s, '''', 'g') ELSE {text} END

-- name: time_cell
to_char({time} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
