"""Notices: who gets them, the outbox that booking writes, and what became of each.

Revision ID: 0025
Revises: 0024
"""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

# A target for every workspace has '*' as its workspace_id, which no id can be.
SCRIPT = """
CREATE TABLE taximeter.notice_targets (
    workspace_id text COLLATE "C" NOT NULL,
    target_id bigint GENERATED ALWAYS AS IDENTITY,
    channel text NOT NULL,
    shown text NOT NULL,
    address bytea NOT NULL,
    secret bytea,
    secret_before bytea,
    secret_before_until timestamptz,
    master text,
    types text[],
    allow_private boolean NOT NULL,
    quiet_seconds integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL,
    disabled_at timestamptz,
    disabled_why text,
    failures integer NOT NULL DEFAULT 0,
    retry_at timestamptz,
    CONSTRAINT notice_targets_pkey PRIMARY KEY (workspace_id, target_id),
    CONSTRAINT notice_targets_channel_check CHECK (channel IN ('webhook', 'apprise')),
    CONSTRAINT notice_targets_secret_check CHECK ((secret IS NOT NULL) = (channel = 'webhook')),
    CONSTRAINT notice_targets_quiet_seconds_check CHECK (quiet_seconds >= 0)
);

CREATE TABLE taximeter.notices (
    workspace_id text COLLATE "C" NOT NULL,
    notice_id bigint GENERATED ALWAYS AS IDENTITY,
    public_id uuid NOT NULL DEFAULT gen_random_uuid(),
    type text NOT NULL,
    subject text COLLATE "C",
    state text,
    body text NOT NULL,
    happened_at timestamptz NOT NULL,
    CONSTRAINT notices_pkey PRIMARY KEY (workspace_id, notice_id)
);

CREATE TABLE taximeter.notice_deliveries (
    workspace_id text COLLATE "C" NOT NULL,
    target_id bigint NOT NULL,
    notice_id bigint NOT NULL,
    state text NOT NULL DEFAULT 'pending',
    tries integer NOT NULL DEFAULT 0,
    queued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    held_until timestamptz,
    ended_at timestamptz,
    CONSTRAINT notice_deliveries_pkey PRIMARY KEY (workspace_id, target_id, notice_id),
    CONSTRAINT notice_deliveries_state_check CHECK (state IN ('pending', 'delivered', 'superseded', 'dead')),
    CONSTRAINT notice_deliveries_ended_check CHECK ((state = 'pending') = (ended_at IS NULL))
);
CREATE INDEX notice_deliveries_pending_idx ON taximeter.notice_deliveries (workspace_id, target_id, notice_id)
    WHERE state = 'pending';
CREATE INDEX notice_deliveries_dead_idx ON taximeter.notice_deliveries (workspace_id, target_id, notice_id)
    WHERE state = 'dead';

-- One row for each target and workspace: whoever delivers holds its lease, so that a workspace's notices reach a target one
-- after another. due_at is NULL where nothing is pending, and never before retry_at.
CREATE TABLE taximeter.notice_lanes (
    workspace_id text COLLATE "C" NOT NULL,
    target_id bigint NOT NULL,
    due_at timestamptz,
    retry_at timestamptz,
    lease uuid,
    leased_until timestamptz,
    CONSTRAINT notice_lanes_pkey PRIMARY KEY (workspace_id, target_id)
);
CREATE INDEX notice_lanes_due_at_idx ON taximeter.notice_lanes (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE taximeter.notice_tries (
    workspace_id text COLLATE "C" NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    target_id bigint NOT NULL,
    notice_id bigint NOT NULL,
    tried_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    outcome text NOT NULL,
    detail text NOT NULL,
    milliseconds integer NOT NULL,
    CONSTRAINT notice_tries_pkey PRIMARY KEY (workspace_id, id)
);
CREATE INDEX notice_tries_notice_id_target_id_idx ON taximeter.notice_tries (workspace_id, notice_id, target_id);

-- What had no price when somebody was last told, and under which revision of the price book.
CREATE TABLE taximeter.missing_prices (
    workspace_id text COLLATE "C" NOT NULL,
    tool text COLLATE "C" NOT NULL,
    provider text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT missing_prices_pkey PRIMARY KEY (workspace_id, tool, provider, model)
);

SELECT taximeter.keep_to_workspace(name) FROM unnest(ARRAY[
    'notice_targets', 'notices', 'notice_deliveries', 'notice_lanes', 'notice_tries',
    'missing_prices']) AS name;

-- Which targets want notices of these workspaces, across row-level security: numbers and types, no address.
CREATE FUNCTION taximeter.notice_targets_of(workspace_ids text[])
    RETURNS TABLE (workspace_id text, target_id bigint, types text[])
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT w.workspace_id, t.target_id, t.types
    FROM (SELECT DISTINCT unnest(notice_targets_of.workspace_ids) COLLATE "C" AS workspace_id) AS w
    JOIN taximeter.notice_targets AS t ON t.workspace_id IN (w.workspace_id, '*')
    WHERE t.disabled_at IS NULL
$$;

-- Names no workspace.
CREATE FUNCTION taximeter.metrics_notices() RETURNS TABLE (pending bigint, dead bigint, oldest_seconds double precision)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT (SELECT count(*) FROM taximeter.notice_deliveries AS d WHERE d.state = 'pending'),
           (SELECT count(*) FROM taximeter.notice_deliveries AS d WHERE d.state = 'dead'),
           coalesce((SELECT extract(epoch FROM now() - min(d.queued_at))::double precision
                     FROM taximeter.notice_deliveries AS d WHERE d.state = 'pending'), 0)
$$;
"""


def upgrade() -> None:
    op.get_bind().connection.cursor().execute(SCRIPT)
