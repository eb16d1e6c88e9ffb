"""Prices with ends, hours, packages, tiers of quantity, rules for events; repricing.

Revision ID: 0004
Revises: 0003
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

PRICES = """
ALTER TABLE taximeter.price_entries
    ADD COLUMN workspace_id text COLLATE "C",
    ADD COLUMN effective_until timestamptz,
    ADD COLUMN charge text NOT NULL DEFAULT 'flat',
    ADD COLUMN daily_from integer[] NOT NULL DEFAULT '{}',
    ADD COLUMN daily_until integer[] NOT NULL DEFAULT '{}',
    ADD COLUMN daily_amounts numeric[] NOT NULL DEFAULT '{}',
    ADD COLUMN fallback_provider text COLLATE "C",
    ADD COLUMN fallback_model text COLLATE "C",
    DROP CONSTRAINT price_entries_target_check,
    ADD CONSTRAINT price_entries_target_check
        CHECK ((tool IS NOT NULL OR provider IS NOT NULL OR workspace_id IS NOT NULL)
               AND (provider IS NULL) = (model IS NULL)
               AND (workspace_id IS NULL OR (provider IS NULL AND unit = '@multiplier'))),
    ADD CONSTRAINT price_entries_until_check CHECK (effective_until > effective_from),
    ADD CONSTRAINT price_entries_charge_check
        CHECK (CASE WHEN unit = '@missing' THEN charge IN ('quarantine', 'estimate', 'free')
                    ELSE charge IN ('flat', 'package', 'graduated', 'volume') END),
    ADD CONSTRAINT price_entries_fallback_check
        CHECK ((fallback_provider IS NULL) = (fallback_model IS NULL)
               AND (fallback_provider IS NULL) = (charge <> 'estimate')),
    ADD CONSTRAINT price_entries_daily_check
        CHECK (cardinality(daily_from) = cardinality(daily_until) AND cardinality(daily_from) = cardinality(daily_amounts)
               AND array_position(daily_from, NULL) IS NULL AND array_position(daily_until, NULL) IS NULL
               AND array_position(daily_amounts, NULL) IS NULL AND 0 <= ALL (daily_from) AND 86400 >= ALL (daily_until)
               AND 0 <= ALL (daily_amounts) AND 'Infinity' > ALL (daily_amounts));
DROP INDEX taximeter.price_entries_version_idx;
CREATE UNIQUE INDEX price_entries_version_idx ON taximeter.price_entries
    (tool, provider, model, workspace_id, unit, effective_from, revision) NULLS NOT DISTINCT;
"""

REPRICING = """
CREATE TABLE taximeter.repricings (
    repricing bigint GENERATED ALWAYS AS IDENTITY,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    reason text NOT NULL,
    revision bigint NOT NULL,
    since timestamptz NOT NULL,
    until timestamptz,
    tool text,
    workspace_id text COLLATE "C",
    CONSTRAINT repricings_pkey PRIMARY KEY (repricing)
);

CREATE TABLE taximeter.repriced_workspaces (
    workspace_id text COLLATE "C" NOT NULL,
    repricing bigint NOT NULL,
    usages bigint NOT NULL,
    old_cost numeric(27,12) NOT NULL,
    new_cost numeric(27,12) NOT NULL,
    payment_id text,
    CONSTRAINT repriced_workspaces_pkey PRIMARY KEY (workspace_id, repricing)
);

CREATE TABLE taximeter.repriced_usages (
    workspace_id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    repricing bigint NOT NULL,
    old_cost numeric(27,12) NOT NULL,
    new_cost numeric(27,12) NOT NULL,
    CONSTRAINT repriced_usages_pkey PRIMARY KEY (workspace_id, seq, repricing)
);

SELECT taximeter.make_append_only(name)
FROM unnest(ARRAY['repricings', 'repriced_workspaces', 'repriced_usages']) AS name;

CREATE VIEW taximeter.usage_pricing AS
SELECT workspace_id, seq, event_id, tool, provider, model, cost, abs(price_version) AS price_version,
       price_version < 0 AS estimated, occurred_at, recorded_at
FROM taximeter.usages;

CREATE VIEW taximeter.repricing_log AS
SELECT r.repricing, w.workspace_id, w.usages, w.old_cost, w.new_cost, w.old_cost - w.new_cost AS adjustment,
       w.payment_id, r.reason, r.revision, r.since, r.until, r.tool, r.created_by, r.created_at
FROM taximeter.repriced_workspaces AS w JOIN taximeter.repricings AS r USING (repricing);
"""


def upgrade() -> None:
    cursor = op.get_bind().connection.cursor()
    for script in (PRICES, REPRICING):
        cursor.execute(script)
