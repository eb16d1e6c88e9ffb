"""Erasing may empty contents and do nothing else to them; a workspace's row may not be removed.

Revision ID: 0012
Revises: 0011
"""

from alembic import op

from taximeter_db.migrations.online import lock_tables

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

SCRIPT = r"""
-- Row triggers, which cost an insert nothing and are inherited by partitions. The statement triggers of 0011 let an
-- erasure pass; what it may leave behind is said here.
CREATE FUNCTION taximeter.refuse_forgery() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    kept record := NEW;
    erased boolean;
BEGIN
    IF TG_ARGV[0] = 'payload' THEN
        erased := NEW.payload = '' AND NEW.codec = -1;
        kept.payload := OLD.payload;
        kept.codec := OLD.codec;
    ELSE
        erased := NEW.correction IS NULL;
        kept.correction := OLD.correction;
    END IF;
    IF erased AND kept IS NOT DISTINCT FROM OLD THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '%.% is append-only: contents can be erased and not replaced', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER erased_only BEFORE UPDATE ON taximeter.usage_payloads
    FOR EACH ROW EXECUTE FUNCTION taximeter.refuse_forgery('payload');
CREATE TRIGGER erased_only BEFORE UPDATE ON taximeter.quarantine_actions
    FOR EACH ROW EXECUTE FUNCTION taximeter.refuse_forgery('correction');

CREATE OR REPLACE FUNCTION taximeter.refuse_quarantine_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE'
       AND (NEW.event = OLD.event OR (NEW.event = '' AND taximeter.is_erasing()))
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

-- Its balance and numbers are what the log adds up to; without the row the next event would begin again from nothing.
CREATE FUNCTION taximeter.refuse_removal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%.%: % refused, a workspace whose log is kept is kept', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER keep_rows BEFORE DELETE OR TRUNCATE ON taximeter.workspaces
    FOR EACH STATEMENT EXECUTE FUNCTION taximeter.refuse_removal();
"""


def upgrade() -> None:
    lock_tables("workspaces", "usage_payloads", "quarantine_actions")
    # Straight to the driver, as in 0001.
    op.get_bind().connection.cursor().execute(SCRIPT)
