-- Strikes out debts that were paid, except those that were noted again since they were read.
-- Takes: ids and times as read_flag_debts.sql returned them. Locks: the debts; never waits, so it is in no deadlock.
DELETE FROM taximeter.stale_flags AS debt
USING (SELECT s.workspace_id, s.noted_at
       FROM taximeter.stale_flags AS s
       JOIN unnest(%s::text[], %s::timestamptz[]) AS paid (workspace_id, noted_at) USING (workspace_id, noted_at)
       FOR UPDATE OF s SKIP LOCKED) AS paid
WHERE debt.workspace_id = paid.workspace_id AND debt.noted_at = paid.noted_at
