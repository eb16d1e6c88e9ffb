"""When a workspace's status changed, and which usage, payment or setting changed it.

Revision ID: 0005
Revises: 0004
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE taximeter.status_changes (
    workspace_id text COLLATE "C" NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    changed_at timestamptz NOT NULL,
    status_before text NOT NULL,
    status_after text NOT NULL,
    balance_after numeric(27,12) NOT NULL,
    minimum_balance numeric(27,12) NOT NULL,
    low_balance_threshold numeric(27,12) NOT NULL,
    entry bigint NOT NULL,
    cause text NOT NULL,
    cause_seq bigint,
    cause_id text,
    CONSTRAINT status_changes_pkey PRIMARY KEY (workspace_id, id),
    CONSTRAINT status_changes_cause_check CHECK (cause IN ('usage', 'payment', 'settings')),
    CONSTRAINT status_changes_status_check CHECK (status_before <> status_after)
);
CREATE INDEX status_changes_workspace_id_changed_at_idx ON taximeter.status_changes (workspace_id, changed_at, id);
SELECT taximeter.make_append_only('status_changes');

-- What is kept from now on does not tell what came before: a reader must be able to say since when it is complete.
ALTER TABLE taximeter.ledger_state ADD COLUMN status_changes_since timestamptz NOT NULL DEFAULT now();
"""


def upgrade() -> None:
    op.get_bind().connection.cursor().execute(TABLES)
