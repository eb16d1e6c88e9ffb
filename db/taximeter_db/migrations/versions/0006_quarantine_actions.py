"""The log of what was tried with quarantined events, corrections included.

Revision ID: 0006
Revises: 0005
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SCRIPT = """
CREATE TABLE taximeter.quarantine_actions (
    id bigint GENERATED ALWAYS AS IDENTITY,
    entry_id bigint NOT NULL,
    action text NOT NULL,
    result text NOT NULL,
    reason text,
    detail text,
    note text,
    correction bytea,
    done_by text NOT NULL,
    done_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT quarantine_actions_pkey PRIMARY KEY (id),
    CONSTRAINT quarantine_actions_action_check CHECK (action IN ('replay', 'dismiss')),
    CONSTRAINT quarantine_actions_result_check CHECK (result IN ('booked', 'duplicate', 'kept', 'dismissed'))
);
CREATE INDEX quarantine_actions_entry_id_idx ON taximeter.quarantine_actions (entry_id, id);
SELECT taximeter.make_append_only('quarantine_actions');

CREATE VIEW taximeter.quarantine_history AS
SELECT entry_id, action, result, reason, detail, note, correction, done_by, done_at
FROM taximeter.quarantine_actions;
"""


def upgrade() -> None:
    # Straight to the driver, as in 0001.
    op.get_bind().connection.cursor().execute(SCRIPT)
