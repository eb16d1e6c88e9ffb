-- What `taximeter doctor` asks PostgreSQL. They read settings and catalogues and lock nothing.

-- name: server
-- Returns: one row: version number, whether it is a standby, fsync, full_page_writes, synchronous_commit.
SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), current_setting('fsync'),
       current_setting('full_page_writes'), (SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit')

-- name: rights
-- Returns: a row for each of the three roles: its name, whether it exists, whether it may use the schema, whether it may
-- read usages, whether it may book them. NULL where the role does not exist.
SELECT wanted.name, r.oid IS NOT NULL, has_schema_privilege(r.oid, 'taximeter', 'USAGE'),
       has_table_privilege(r.oid, 'taximeter.usages', 'SELECT'), has_table_privilege(r.oid, 'taximeter.usages', 'INSERT')
FROM unnest(%(roles)s::text[]) AS wanted(name) LEFT JOIN pg_roles AS r ON r.rolname = wanted.name
ORDER BY wanted.name

-- name: prices
-- Returns: one row: the book's newest revision (NULL: it is empty), and the days since a catalogue was last imported or
-- looked at (NULL: never).
SELECT max(revision), (extract(epoch FROM now() - max(created_at) FILTER (WHERE reason LIKE 'import %%')) / 86400)::int
FROM taximeter.price_revisions
