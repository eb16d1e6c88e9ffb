"""The constraints of 0019 hold for all payments; bookings go on while they are read.

Revision ID: 0020
Revises: 0019
"""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

SCRIPT = """
ALTER TABLE taximeter.payments VALIDATE CONSTRAINT payments_amount_check, VALIDATE CONSTRAINT payments_kind_check;
"""


def upgrade() -> None:
    op.get_bind().connection.cursor().execute(SCRIPT)
