-- Writes notices to the outbox, in the order given, with a delivery to each target that wants them; one that no target
-- wants is not written. Runs in the transaction that causes them, which holds the rows of their workspaces: that is what puts
-- a workspace's notices in order.
-- Takes: arrays of one length, one element a notice. Locks: the lanes of those targets, sorted.
-- Returns: how many deliveries there are.
WITH wanted AS MATERIALIZED (
    SELECT v.*, t.target_id
    FROM unnest(%(public_ids)s::uuid[], %(workspace_ids)s::text[], %(types)s::text[], %(subjects)s::text[],
                %(states)s::text[], %(bodies)s::text[], %(times)s::timestamptz[])
         WITH ORDINALITY AS v (public_id, workspace_id, type, subject, state, body, happened_at, number)
    JOIN taximeter.notice_targets_of(%(workspace_ids)s::text[]) AS t
      ON t.workspace_id = v.workspace_id AND (t.types IS NULL OR v.type = ANY(t.types))
), written AS (
    -- each takes its number after the sort
    INSERT INTO taximeter.notices (public_id, workspace_id, type, subject, state, body, happened_at)
    SELECT d.public_id, d.workspace_id, d.type, d.subject, d.state, d.body, d.happened_at
    FROM (SELECT DISTINCT ON (w.number) w.* FROM wanted AS w ORDER BY w.number) AS d ORDER BY d.number
    RETURNING public_id, notice_id
), queued AS (
    INSERT INTO taximeter.notice_deliveries (workspace_id, target_id, notice_id)
    SELECT w.workspace_id, w.target_id, n.notice_id FROM wanted AS w JOIN written AS n USING (public_id)
    RETURNING 1
), lanes AS (
    INSERT INTO taximeter.notice_lanes AS l (workspace_id, target_id, due_at)
    SELECT DISTINCT w.workspace_id COLLATE "C", w.target_id, now() FROM wanted AS w ORDER BY 1, 2
    ON CONFLICT (workspace_id, target_id)
    DO UPDATE SET due_at = greatest(least(l.due_at, excluded.due_at), l.retry_at)  -- both leave NULLs out
)
SELECT count(*) FROM queued
