-- The clock of the demonstration's past, set back for one transaction: see docs/decisions/0110. Only the owner may.
-- `taximeter_demo.now` and `taximeter_demo.since` are settings of that transaction.

-- name: partition_before
-- Makes partitions for the time from taximeter_demo.since to the first one: what taximeter.ensure_partitions does ahead.
-- Locks: the partitioned tables, ACCESS EXCLUSIVE, until the transaction ends.
DO $$
DECLARE
    since timestamptz := pg_catalog.current_setting('taximeter_demo.since')::timestamptz;
    until timestamptz;
    parent text;
BEGIN
    SELECT min(starts_at) INTO until FROM taximeter.usage_partitions;
    IF since < until THEN
        FOREACH parent IN ARRAY ARRAY['usages', 'usage_payloads'] LOOP
            EXECUTE format('CREATE TABLE taximeter.%I PARTITION OF taximeter.%I FOR VALUES FROM (%L) TO (%L)',
                           parent || '_before', parent, since, until);
            PERFORM taximeter.make_append_only(parent || '_before');
        END LOOP;
        INSERT INTO taximeter.usage_partitions VALUES (since, until);
    END IF;
END $$

-- name: set
-- Puts functions that answer taximeter_demo.now before PostgreSQL's own. Locks: usage_keys and workspaces, ACCESS EXCLUSIVE.
CREATE SCHEMA taximeter_demo;
CREATE FUNCTION taximeter_demo.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS $$ SELECT pg_catalog.current_setting('taximeter_demo.now')::timestamptz $$;
CREATE FUNCTION taximeter_demo.statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
    AS $$ SELECT pg_catalog.current_setting('taximeter_demo.now')::timestamptz $$;
CREATE FUNCTION taximeter_demo.now() RETURNS timestamptz LANGUAGE sql STABLE
    AS $$ SELECT pg_catalog.current_setting('taximeter_demo.now')::timestamptz $$;
ALTER TABLE taximeter.usage_keys ALTER COLUMN booked_at SET DEFAULT taximeter_demo.now();
-- recorded_at never lies before updated_at
ALTER TABLE taximeter.workspaces ALTER COLUMN updated_at SET DEFAULT taximeter_demo.now();
SET LOCAL search_path = taximeter_demo, taximeter, pg_catalog;

-- name: reset
-- Puts everything back as it was before `set`.
SET LOCAL search_path = taximeter, pg_catalog;
ALTER TABLE taximeter.usage_keys ALTER COLUMN booked_at SET DEFAULT pg_catalog.now();
ALTER TABLE taximeter.workspaces ALTER COLUMN updated_at SET DEFAULT pg_catalog.now();
DROP SCHEMA taximeter_demo CASCADE;
