"""Partitions that are made beside bookings and readers; what a schema demands of the code.

Revision ID: 0014
Revises: 0013
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

SCRIPT = r"""
-- Makes the partition of the usage log that covers `moment`, if there is none; returns when it ends. A table of its own
-- first, then ATTACH: unlike CREATE TABLE ... PARTITION OF, that takes no lock which a reader or a booking waits for.
-- Fails with lock_not_available where the lock that it does need is not to be had within two seconds.
-- Runs as its owner, so that a worker needs no right to create tables.
CREATE FUNCTION taximeter.ensure_partition_at(moment timestamptz) RETURNS timestamptz
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    width text;
    slice_start timestamptz;
    slice_end timestamptz;
    parent text;
    part text;
BEGIN
    PERFORM pg_advisory_xact_lock(7480312908);
    SELECT ends_at INTO slice_end FROM taximeter.usage_partitions WHERE starts_at <= moment AND ends_at > moment;
    IF FOUND THEN
        RETURN slice_end;
    END IF;
    SELECT partition_width INTO width FROM taximeter.ledger_state;
    slice_start := date_trunc(width, moment, 'UTC');
    slice_end := (slice_start AT TIME ZONE 'UTC' + ('1 ' || width)::interval) AT TIME ZONE 'UTC';
    -- Where the width was changed, what is there already bounds the slice.
    SELECT greatest(slice_start, max(ends_at)) INTO slice_start FROM taximeter.usage_partitions WHERE ends_at <= moment;
    SELECT least(slice_end, min(starts_at)) INTO slice_end FROM taximeter.usage_partitions WHERE starts_at > moment;
    FOREACH parent IN ARRAY ARRAY['usages', 'usage_payloads'] LOOP
        part := parent || '_p' || to_char(slice_start AT TIME ZONE 'UTC', 'YYYYMMDD');
        EXECUTE format('CREATE TABLE taximeter.%I (LIKE taximeter.%I INCLUDING ALL)', part, parent);
        -- Statement triggers are not inherited: without its own, a partition named directly could be emptied.
        PERFORM taximeter.make_append_only(part);
        EXECUTE format('ALTER TABLE taximeter.%I ATTACH PARTITION taximeter.%I FOR VALUES FROM (%L) TO (%L)',
                       parent, part, slice_start, slice_end);
    END LOOP;
    INSERT INTO taximeter.usage_partitions VALUES (slice_start, slice_end);
    RETURN slice_end;
END $$;

-- As before: makes the partitions that cover now() until `until` and returns how many were made.
CREATE OR REPLACE FUNCTION taximeter.ensure_partitions(until timestamptz) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    before bigint;
    moment timestamptz := now();
BEGIN
    PERFORM pg_advisory_xact_lock(7480312908);
    SELECT count(*) INTO before FROM taximeter.usage_partitions;
    WHILE moment <= until LOOP
        moment := taximeter.ensure_partition_at(moment);
    END LOOP;
    RETURN (SELECT count(*) - before FROM taximeter.usage_partitions);
END $$;

-- The newest migration that a version of the code must know to work on this schema. A migration that takes away or changes
-- what older code uses replaces it with its own number (docs/upgrades.md).
CREATE FUNCTION taximeter.oldest_code() RETURNS text LANGUAGE sql IMMUTABLE RETURN '0012';
"""


def upgrade() -> None:
    # Straight to the driver, as in 0001.
    op.get_bind().connection.cursor().execute(SCRIPT)
