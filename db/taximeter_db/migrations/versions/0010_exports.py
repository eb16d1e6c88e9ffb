"""Who exported what: progress while it runs, and a trace afterwards.

Revision ID: 0010
Revises: 0009
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE taximeter.exports (
    workspace_id text COLLATE "C" NOT NULL,
    ticket text COLLATE "C" NOT NULL,
    log text NOT NULL,
    format text NOT NULL,
    filter text NOT NULL,
    begun_by text NOT NULL,
    begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    moved_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    rows_total bigint,
    rows_done bigint NOT NULL DEFAULT 0,
    state text NOT NULL DEFAULT 'running',
    CONSTRAINT exports_pkey PRIMARY KEY (workspace_id, ticket),
    CONSTRAINT exports_state_check CHECK (state IN ('running', 'done', 'cancelled', 'failed'))
);
SELECT taximeter.keep_to_workspace('exports');
"""


def upgrade() -> None:
    op.get_bind().connection.cursor().execute(TABLES)
