"""Service tokens: what programs use the JSON API with.

Revision ID: 0023
Revises: 0022
"""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

# A row for each workspace that a token is for; '*', which no id can be, stands for all of them.
SCRIPT = """
CREATE TABLE taximeter.service_tokens (
    workspace_id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    token_hash bytea NOT NULL,
    read_only boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL,
    CONSTRAINT service_tokens_pkey PRIMARY KEY (workspace_id, name),
    CONSTRAINT service_tokens_token_hash_workspace_id_key UNIQUE (token_hash, workspace_id),
    CONSTRAINT service_tokens_token_hash_check CHECK (octet_length(token_hash) = 32),
    CONSTRAINT service_tokens_name_check CHECK (char_length(name) BETWEEN 1 AND 64)
);
SELECT taximeter.keep_to_workspace('service_tokens');

-- What one token is for, across row-level security: whoever asks has the token, and learns of no other.
CREATE FUNCTION taximeter.service_token(hash bytea)
    RETURNS TABLE (workspace_id text, name text, read_only boolean)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.workspace_id, t.name, t.read_only FROM taximeter.service_tokens AS t
    WHERE t.token_hash = service_token.hash
$$;
"""


def upgrade() -> None:
    op.get_bind().connection.cursor().execute(SCRIPT)
