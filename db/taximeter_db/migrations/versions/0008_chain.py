"""A hash chain over each workspace's usages and payments; quantities kept as the text that came.

Revision ID: 0008
Revises: 0007
"""

from alembic import op

from taximeter_db.migrations.online import lock_tables

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# Rewrites the usage log once (the type of quantities changes): about a minute for ten million usages, writers wait.
COLUMNS = """
SET LOCAL statement_timeout = 0;
DROP VIEW taximeter.usage_log;
ALTER TABLE taximeter.usages
    ALTER COLUMN quantities TYPE json USING quantities::text::json,
    ADD COLUMN fingerprint uuid,
    ADD COLUMN link bytea;
CREATE VIEW taximeter.usage_log AS
SELECT workspace_id, seq, event_id, tool, provider, model, quantities::jsonb AS quantities, cost, balance_after,
       occurred_at, recorded_at
FROM taximeter.usages;

ALTER TABLE taximeter.payments ADD COLUMN link bytea;
ALTER TABLE taximeter.workspaces
    ADD COLUMN chain bytea NOT NULL DEFAULT ''::bytea,
    ADD CONSTRAINT workspaces_chain_check CHECK (octet_length(chain) IN (0, 32));

CREATE TABLE taximeter.chain_starts (
    workspace_id text COLLATE "C" NOT NULL,
    usage_count bigint NOT NULL,
    payment_count bigint NOT NULL,
    usage_cost numeric(27,12) NOT NULL,
    payment_total numeric(27,12) NOT NULL,
    chain bytea NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT chain_starts_pkey PRIMARY KEY (workspace_id)
);
SELECT taximeter.make_append_only('chain_starts');
SELECT taximeter.keep_to_workspace('chain_starts');
"""

# The formulas of the chain, once for booking and for verify. Every part has a fixed length or carries it.
FUNCTIONS = """
CREATE FUNCTION taximeter.usage_content(price_version bigint, occurred_at timestamptz, fingerprint uuid, cost numeric,
                                        tool text, provider text, model text, event_id text, quantities json)
    RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE
    RETURN record_send(ROW(price_version, occurred_at, fingerprint, cost, tool, provider, model, event_id, quantities));

CREATE FUNCTION taximeter.payment_content(payment_id text, kind text, amount numeric, transaction jsonb, note text,
                                          fingerprint uuid, occurred_at timestamptz)
    RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE
    RETURN record_send(ROW(payment_id, kind, amount, transaction, note, fingerprint, occurred_at));

CREATE FUNCTION taximeter.batch_digest(workspace_id text, contents bytea)
    RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE
    RETURN sha256(int4send(octet_length(workspace_id)) || textsend(workspace_id) || contents);

CREATE FUNCTION taximeter.chain_link(chain bytea, digest bytea, usage_count bigint, payment_count bigint,
                                     recorded_at timestamptz)
    RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN sha256(chain || digest || int8send(usage_count) || int8send(payment_count) || timestamptz_send(recorded_at));

-- Begins the chain of every workspace that has a log without one, after what it holds; returns how many began.
CREATE FUNCTION taximeter.start_chains() RETURNS bigint LANGUAGE sql AS $$
    WITH started AS (
        UPDATE taximeter.workspaces AS w
        SET chain = sha256(record_send(ROW('start', workspace_id, usage_count, payment_count, usage_cost, payment_total,
                                           now())))
        WHERE chain = '' AND usage_count + payment_count > 0
        RETURNING workspace_id, usage_count, payment_count, usage_cost, payment_total, chain
    ), noted AS (
        INSERT INTO taximeter.chain_starts
            (workspace_id, usage_count, payment_count, usage_cost, payment_total, chain)
        SELECT * FROM started RETURNING 1
    )
    SELECT count(*) FROM noted
$$;
SELECT taximeter.start_chains();
"""


def upgrade() -> None:
    lock_tables("workspaces", "usages", "payments")
    cursor = op.get_bind().connection.cursor()
    for script in (COLUMNS, FUNCTIONS):
        cursor.execute(script)
