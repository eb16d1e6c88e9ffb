"""How far the deepest balance lies below its minimum.

Revision ID: 0026
Revises: 0025
"""

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

SCRIPT = """
-- In USD; 0 where no balance is below its minimum.
CREATE FUNCTION taximeter.metrics_overdraft() RETURNS numeric
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(max(minimum_balance - balance), 0) FROM taximeter.workspaces WHERE balance < minimum_balance
$$;
"""


def upgrade() -> None:
    op.get_bind().connection.cursor().execute(SCRIPT)
