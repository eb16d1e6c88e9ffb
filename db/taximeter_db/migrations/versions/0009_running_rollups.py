"""Rollups that carry running totals and bands of cost, and pages of event ids, sorted: what large workspaces are read by.

All of it is derived from the log. The worker's task, and the page itself, make it anew.

Revision ID: 0009
Revises: 0008
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TABLES = """
DROP TABLE taximeter.usage_rollups;
DROP TABLE taximeter.usage_names;
DELETE FROM taximeter.rollup_progress;

CREATE TABLE taximeter.usage_rollups (
    workspace_id text COLLATE "C" NOT NULL,
    tool text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    band smallint NOT NULL,
    slot timestamptz NOT NULL,
    block bigint NOT NULL,
    usages bigint NOT NULL,
    cost numeric(27,12) NOT NULL,
    usages_total bigint NOT NULL,
    cost_total numeric(27,12) NOT NULL,
    first_seq bigint NOT NULL,
    last_seq bigint NOT NULL,
    CONSTRAINT usage_rollups_pkey PRIMARY KEY (workspace_id, tool, model, band, slot, block)
);
CREATE INDEX usage_rollups_workspace_id_slot_last_seq_idx ON taximeter.usage_rollups (workspace_id, slot, last_seq);

CREATE TABLE taximeter.usage_names (
    workspace_id text COLLATE "C" NOT NULL,
    tool text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    band smallint NOT NULL,
    CONSTRAINT usage_names_pkey PRIMARY KEY (workspace_id, tool, model, band)
);

CREATE TABLE taximeter.usage_id_pages (
    workspace_id text COLLATE "C" NOT NULL,
    run bigint NOT NULL,
    low_id text COLLATE "C" NOT NULL,
    high_id text COLLATE "C" NOT NULL,
    ids text[] COLLATE "C" NOT NULL,
    seqs bigint[] NOT NULL,
    CONSTRAINT usage_id_pages_pkey PRIMARY KEY (workspace_id, run, low_id)
);

SELECT taximeter.keep_to_workspace(name) FROM unnest(ARRAY['usage_rollups', 'usage_names', 'usage_id_pages']) AS name;
"""


def upgrade() -> None:
    op.get_bind().connection.cursor().execute(TABLES)
