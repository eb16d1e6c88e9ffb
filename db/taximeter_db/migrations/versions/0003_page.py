"""What the page keeps: rollups of the usage log, who may look, and what was changed or looked at by whom.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE taximeter.usage_rollups (
    workspace_id text COLLATE "C" NOT NULL,
    slot timestamptz NOT NULL,
    tool text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    usages bigint NOT NULL,
    cost numeric(27,12) NOT NULL,
    cost_max numeric(27,12) NOT NULL,
    first_seq bigint NOT NULL,
    last_seq bigint NOT NULL,
    CONSTRAINT usage_rollups_pkey PRIMARY KEY (workspace_id, slot, tool, model)
);

CREATE TABLE taximeter.rollup_progress (
    workspace_id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    CONSTRAINT rollup_progress_pkey PRIMARY KEY (workspace_id)
);

CREATE TABLE taximeter.usage_names (
    workspace_id text COLLATE "C" NOT NULL,
    tool text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    CONSTRAINT usage_names_pkey PRIMARY KEY (workspace_id, tool, model)
);

CREATE TABLE taximeter.workspace_changes (
    workspace_id text COLLATE "C" NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_by text NOT NULL,
    field text NOT NULL,
    value_before text,
    value_after text,
    CONSTRAINT workspace_changes_pkey PRIMARY KEY (workspace_id, id)
);

CREATE TABLE taximeter.workspace_readers (
    workspace_id text COLLATE "C" NOT NULL,
    member text COLLATE "C" NOT NULL,
    CONSTRAINT workspace_readers_pkey PRIMARY KEY (workspace_id, member),
    CONSTRAINT workspace_readers_member_check CHECK (char_length(member) BETWEEN 1 AND 255)
);

CREATE TABLE taximeter.operator_looks (
    workspace_id text COLLATE "C" NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    looked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    operator text NOT NULL,
    path text NOT NULL,
    CONSTRAINT operator_looks_pkey PRIMARY KEY (workspace_id, id)
);

CREATE TABLE taximeter.used_sign_ins (
    code text COLLATE "C" NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT used_sign_ins_pkey PRIMARY KEY (code)
);

SELECT taximeter.make_append_only(name) FROM unnest(ARRAY['workspace_changes', 'operator_looks']) AS name;
"""


def upgrade() -> None:
    op.get_bind().connection.cursor().execute(TABLES)
