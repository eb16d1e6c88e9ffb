-- Opens a read-only transaction with the snapshot of another one, put in as a literal where braces stand.
-- Locks: nothing.

-- name: begin
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY

-- name: snapshot
SET TRANSACTION SNAPSHOT {}
