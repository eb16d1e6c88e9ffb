"""What the price book was asked for an event that waits for a price, so that a replay need not read the event to know.

Revision ID: 0017
Revises: 0016
"""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

# A column without a default: the table is not rewritten, and its lock is held for a moment. Entries of before have none, and are
# read whole. The trigger lets nobody change it: nothing but the columns of a resolution may change (0013).
SCRIPT = r"""
ALTER TABLE taximeter.quarantine ADD COLUMN price_query jsonb;

CREATE OR REPLACE FUNCTION taximeter.refuse_quarantine_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE'
       AND (NEW.event = OLD.event OR (NEW.event = '' AND taximeter.is_erasing()))
       AND (NEW.properties::text IS NOT DISTINCT FROM OLD.properties::text
            OR (NEW.properties IS NULL AND taximeter.is_erasing()))
       AND (OLD.resolved_at IS NULL
            OR (taximeter.is_erasing()
                AND (NEW.resolved_at, NEW.resolution, NEW.resolved_by, NEW.resolution_note)
                    IS NOT DISTINCT FROM (OLD.resolved_at, OLD.resolution, OLD.resolved_by,
                                          coalesce(OLD.resolution_note, NEW.resolution_note))))
       AND (NEW.id, NEW.kind, NEW.workspace_id, NEW.event_id, NEW.reason, NEW.detail, NEW.content_type,
            NEW.digest, NEW.received_at, NEW.price_query)
           IS NOT DISTINCT FROM
           (OLD.id, OLD.kind, OLD.workspace_id, OLD.event_id, OLD.reason, OLD.detail, OLD.content_type,
            OLD.digest, OLD.received_at, OLD.price_query) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'taximeter.quarantine: % refused, an entry can only be resolved, once', TG_OP
        USING ERRCODE = 'restrict_violation';
END $$;
"""


def upgrade() -> None:
    op.get_bind().connection.cursor().execute(SCRIPT)
