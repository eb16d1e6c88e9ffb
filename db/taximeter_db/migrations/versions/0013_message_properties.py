"""What a sender gave with a message beside its bytes is kept with the quarantined entry.

Revision ID: 0013
Revises: 0012
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

SCRIPT = r"""
ALTER TABLE taximeter.quarantine ADD COLUMN properties json;

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
            NEW.digest, NEW.received_at)
           IS NOT DISTINCT FROM
           (OLD.id, OLD.kind, OLD.workspace_id, OLD.event_id, OLD.reason, OLD.detail, OLD.content_type,
            OLD.digest, OLD.received_at) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'taximeter.quarantine: % refused, an entry can only be resolved, once', TG_OP
        USING ERRCODE = 'restrict_violation';
END $$;
"""


def upgrade() -> None:
    # Straight to the driver, as in 0001.
    op.get_bind().connection.cursor().execute(SCRIPT)
