"""User, tags and hold of a usage: in the log, in its view, in the hash chain.

Revision ID: 0021
Revises: 0020
"""

from alembic import op

from taximeter_db.migrations.online import lock_tables

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

# Columns that may be NULL, without a default: nothing is rewritten, whatever the size of the log. A usage that names none
# of the three is hashed as before, so that links of before, and those that the release before makes meanwhile, stay right.
# That release's `verify` calls the shorter function.
SCRIPT = """
ALTER TABLE taximeter.usages ADD COLUMN user_id text, ADD COLUMN tags json, ADD COLUMN hold_id text;

CREATE OR REPLACE VIEW taximeter.usage_log AS
SELECT workspace_id, seq, event_id, tool, provider, model, quantities::jsonb AS quantities, cost, balance_after,
       occurred_at, recorded_at, user_id, tags::jsonb AS tags, hold_id
FROM taximeter.usages;

CREATE FUNCTION taximeter.usage_content(price_version bigint, occurred_at timestamptz, fingerprint uuid, cost numeric,
                                        tool text, provider text, model text, event_id text, quantities json,
                                        user_id text, tags json, hold_id text)
    RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN num_nonnulls(user_id, tags, hold_id) = 0
        THEN record_send(ROW(price_version, occurred_at, fingerprint, cost, tool, provider, model, event_id, quantities))
        ELSE record_send(ROW(price_version, occurred_at, fingerprint, cost, tool, provider, model, event_id, quantities,
                             user_id, tags, hold_id)) END;
"""


def upgrade() -> None:
    lock_tables("usages")
    op.get_bind().connection.cursor().execute(SCRIPT)
