"""What each user and each tag of a workspace cost, in rollups of their own.

Revision ID: 0024
Revises: 0023
"""

from alembic import op

from taximeter_db.migrations.online import lock_tables

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

# labels_seq is NULL until this release first looks: it begins then at the first usage recorded since labels_since, since
# none before can bear a label. A worker of the release before moves seq alone, and leaves no gap in these rollups.
SCRIPT = """
CREATE TABLE taximeter.label_rollups (
    workspace_id text COLLATE "C" NOT NULL,
    label text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    slot timestamptz NOT NULL,
    block bigint NOT NULL,
    usages_total bigint NOT NULL,
    cost_total numeric(27,12) NOT NULL,
    first_seq bigint NOT NULL,
    last_seq bigint NOT NULL,
    CONSTRAINT label_rollups_pkey PRIMARY KEY (workspace_id, label, value, slot, block)
);

CREATE TABLE taximeter.label_totals (
    workspace_id text COLLATE "C" NOT NULL,
    label text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    usages bigint NOT NULL,
    cost numeric(27,12) NOT NULL,
    first_slot timestamptz NOT NULL,
    last_slot timestamptz NOT NULL,
    CONSTRAINT label_totals_pkey PRIMARY KEY (workspace_id, label, value)
);
CREATE INDEX label_totals_workspace_id_label_idx ON taximeter.label_totals (workspace_id, label) WHERE value = '';

SELECT taximeter.keep_to_workspace(name) FROM unnest(ARRAY['label_rollups', 'label_totals']) AS name;

ALTER TABLE taximeter.rollup_progress ADD COLUMN labels_seq bigint;
ALTER TABLE taximeter.ledger_state ADD COLUMN labels_since timestamptz NOT NULL DEFAULT now();
"""


def upgrade() -> None:
    lock_tables("ledger_state", "rollup_progress")
    op.get_bind().connection.cursor().execute(SCRIPT)
