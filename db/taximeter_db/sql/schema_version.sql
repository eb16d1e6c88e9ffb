-- What version a schema is, and what it demands of the code. Locks: nothing.

-- name: version
-- Returns: the number of the newest migration that was applied. Fails where there is no schema.
SELECT version_num FROM taximeter.alembic_version

-- name: oldest_code
-- Returns: the newest migration that a version of the code must know to work on this schema. Fails before 0014.
SELECT taximeter.oldest_code()
