"""Data keys of workspaces, wrapped by a master key; erasing what events said without touching what they cost.

Revision ID: 0011
Revises: 0010
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

SCRIPT = r"""
CREATE TABLE taximeter.workspace_keys (
    workspace_id text COLLATE "C" NOT NULL,
    number integer NOT NULL,
    wrapped bytea,
    master text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    erased_at timestamptz,
    CONSTRAINT workspace_keys_pkey PRIMARY KEY (workspace_id, number),
    CONSTRAINT workspace_keys_erased_check CHECK ((wrapped IS NULL) = (erased_at IS NOT NULL))
);
CREATE INDEX workspace_keys_master_idx ON taximeter.workspace_keys (master, workspace_id, number) WHERE wrapped IS NOT NULL;

CREATE TABLE taximeter.payload_erasures (
    workspace_id text COLLATE "C" NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    erased_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    erased_by text NOT NULL,
    keys integer NOT NULL,
    usages bigint NOT NULL,
    quarantined bigint NOT NULL,
    CONSTRAINT payload_erasures_pkey PRIMARY KEY (workspace_id, id)
);
SELECT taximeter.make_append_only('payload_erasures');
SELECT taximeter.keep_to_workspace(name) FROM unnest(ARRAY['workspace_keys', 'payload_erasures']) AS name;

-- The number of the data key that new payloads are to be encrypted with; 0: none yet, or erased.
ALTER TABLE taximeter.workspaces ADD COLUMN payload_key integer NOT NULL DEFAULT 0;

-- Only while the owner erases contents, which the transaction must say; everyday work never does.
CREATE FUNCTION taximeter.is_erasing() RETURNS boolean LANGUAGE sql STABLE
    RETURN coalesce(current_setting('taximeter.erasing', true), '') = 'on'
           AND pg_has_role(current_user, (SELECT nspowner FROM pg_namespace WHERE nspname = 'taximeter'), 'MEMBER');

CREATE OR REPLACE FUNCTION taximeter.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND (TG_TABLE_NAME LIKE 'usage\_payloads%' OR TG_TABLE_NAME = 'quarantine_actions')
       AND taximeter.is_erasing() THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION '%.% is append-only: % refused', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation',
              HINT = 'Book a compensating adjustment instead of changing history.';
END $$;

CREATE OR REPLACE FUNCTION taximeter.refuse_quarantine_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND (OLD.resolved_at IS NULL OR taximeter.is_erasing())
       AND (NEW.event = OLD.event OR taximeter.is_erasing())
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
    op.get_bind().connection.cursor().execute(SCRIPT)
