-- Strikes out the debts of workspaces whose newest state Redis has.
-- A debt that another transaction notes at this moment has another time, and stays.
-- Takes: ids, and the version that was written for each. Locks: the debts; never waits, so it is in no deadlock.
DELETE FROM taximeter.stale_flags AS debt
USING (SELECT s.workspace_id, s.noted_at
       FROM taximeter.stale_flags AS s
       JOIN unnest(%s::text[], %s::bigint[]) AS written (workspace_id, version) USING (workspace_id)
       JOIN taximeter.workspaces AS w USING (workspace_id, version)
       FOR UPDATE OF s SKIP LOCKED) AS paid
WHERE debt.workspace_id = paid.workspace_id AND debt.noted_at = paid.noted_at
