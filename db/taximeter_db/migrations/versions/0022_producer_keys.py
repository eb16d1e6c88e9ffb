"""The keys of those who publish through the HTTP gateway.

Revision ID: 0022
Revises: 0021
"""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

SCRIPT = """
CREATE TABLE taximeter.producer_keys (
    key_hash bytea NOT NULL CONSTRAINT producer_keys_pkey PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    workspaces text[] COLLATE "C",
    tools text[],
    kinds text[] NOT NULL,
    events_per_second integer,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    revoked_at timestamptz,
    CONSTRAINT producer_keys_key_hash_check CHECK (octet_length(key_hash) = 32),
    CONSTRAINT producer_keys_kinds_check CHECK (kinds <> '{}' AND kinds <@ ARRAY['usage', 'payment']),
    CONSTRAINT producer_keys_events_per_second_check CHECK (events_per_second > 0)
);
CREATE UNIQUE INDEX producer_keys_name_idx ON taximeter.producer_keys (name) WHERE revoked_at IS NULL;
"""


def upgrade() -> None:
    op.get_bind().connection.cursor().execute(SCRIPT)
