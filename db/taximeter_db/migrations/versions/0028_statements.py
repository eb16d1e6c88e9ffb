"""Statements: a month's account of a workspace, stored once the month is over; and grants: credit that expires.

Revision ID: 0028
Revises: 0027
"""

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

# New tables only: no lock that a booking waits for. The zone stands in a table of its own for the same reason.
SCRIPT = """
CREATE TABLE taximeter.statements (
    workspace_id text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    month date NOT NULL,
    zone text NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    opening numeric(27,12) NOT NULL,
    payments numeric(27,12) NOT NULL,
    usage numeric(27,12) NOT NULL,
    closing numeric(27,12) NOT NULL,
    usage_first bigint NOT NULL,
    usage_last bigint NOT NULL,
    payment_first bigint NOT NULL,
    payment_last bigint NOT NULL,
    lines json NOT NULL,
    closed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT statements_pkey PRIMARY KEY (workspace_id, number),
    CONSTRAINT statements_workspace_id_month_key UNIQUE (workspace_id, month),
    CONSTRAINT statements_number_check CHECK (number >= 1),
    CONSTRAINT statements_month_check CHECK (extract(day FROM month) = 1 AND starts_at < ends_at AND ends_at <= closed_at),
    CONSTRAINT statements_closing_check CHECK (opening + payments - usage = closing AND closing <> 'NaN'),
    CONSTRAINT statements_entries_check CHECK (usage_first >= 1 AND usage_last >= usage_first - 1
                                               AND payment_first >= 1 AND payment_last >= payment_first - 1)
);

CREATE TABLE taximeter.statement_zones (
    workspace_id text COLLATE "C" NOT NULL,
    zone text NOT NULL,
    CONSTRAINT statement_zones_pkey PRIMARY KEY (workspace_id),
    CONSTRAINT statement_zones_zone_check CHECK (char_length(zone) BETWEEN 1 AND 64)
);

CREATE TABLE taximeter.grants (
    workspace_id text COLLATE "C" NOT NULL,
    payment_id text COLLATE "C" NOT NULL,
    expires_at timestamptz NOT NULL,
    priority smallint NOT NULL,
    settled_at timestamptz,
    CONSTRAINT grants_pkey PRIMARY KEY (workspace_id, payment_id),
    CONSTRAINT grants_priority_check CHECK (priority BETWEEN 0 AND 1000)
);
CREATE INDEX grants_expires_at_idx ON taximeter.grants (expires_at) WHERE settled_at IS NULL;

SELECT taximeter.make_append_only('statements');
SELECT taximeter.keep_to_workspace(name) FROM unnest(ARRAY['statements', 'statement_zones', 'grants']) AS name;
"""


def upgrade() -> None:
    op.get_bind().connection.cursor().execute(SCRIPT)
