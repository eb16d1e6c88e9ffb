"""Erasing one quarantined event, forgetting what dismissed ones said after a time, and the quarantine's size.

Revision ID: 0015
Revises: 0014
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

SCRIPT = r"""
ALTER TABLE taximeter.quarantine_actions
    DROP CONSTRAINT quarantine_actions_action_check,
    DROP CONSTRAINT quarantine_actions_result_check,
    ADD CONSTRAINT quarantine_actions_action_check CHECK (action IN ('replay', 'dismiss', 'erase')),
    ADD CONSTRAINT quarantine_actions_result_check
        CHECK (result IN ('booked', 'duplicate', 'kept', 'dismissed', 'erased'));

-- Empties up to `lines` events that were dismissed before that moment, and the corrections that were tried in their place;
-- digest, reason and detail stay. Runs as its owner: a worker may do this and nothing else to what is kept. Entries that
-- somebody works on are left for the next time. Returns how many were emptied.
CREATE FUNCTION taximeter.forget_dismissed(dismissed_before timestamptz, lines integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ids bigint[];
BEGIN
    SELECT array_agg(d.id) INTO ids FROM (
        SELECT q.id FROM taximeter.quarantine AS q
        WHERE q.resolution = 'dismissed' AND q.resolved_at < dismissed_before AND (q.event <> '' OR q.properties IS NOT NULL)
        LIMIT lines FOR UPDATE SKIP LOCKED) AS d;
    IF ids IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM set_config('taximeter.erasing', 'on', true);
    UPDATE taximeter.quarantine_actions SET correction = NULL WHERE entry_id = ANY(ids) AND correction IS NOT NULL;
    UPDATE taximeter.quarantine SET event = '', properties = NULL WHERE id = ANY(ids);
    PERFORM set_config('taximeter.erasing', '', true);
    RETURN cardinality(ids);
END $$;

-- What the quarantine takes on the disk: its table, the events in it and its indexes.
CREATE FUNCTION taximeter.metrics_quarantine_bytes() RETURNS bigint
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_total_relation_size('taximeter.quarantine')
$$;
"""


def upgrade() -> None:
    op.get_bind().connection.cursor().execute(SCRIPT)
