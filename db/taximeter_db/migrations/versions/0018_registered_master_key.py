"""The name of the master key that all workers must know.

Revision ID: 0018
Revises: 0017
"""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

SCRIPT = """
ALTER TABLE taximeter.ledger_state ADD COLUMN master_key text;
UPDATE taximeter.ledger_state SET master_key = (
    SELECT k.master FROM taximeter.workspace_keys AS k WHERE k.wrapped IS NOT NULL ORDER BY k.created_at DESC LIMIT 1);
"""


def upgrade() -> None:
    op.get_bind().connection.cursor().execute(SCRIPT)
