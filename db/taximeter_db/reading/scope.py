"""Which workspace a transaction may see, for database users under row-level security."""

from __future__ import annotations

from typing import Any

from psycopg import Connection


def enter(conn: Connection[Any], workspace_id: str) -> None:
    """Let the rest of the transaction see this workspace's rows and no other's.

    Call it only after the person was found to have a role in the workspace. It ends with the transaction, so that a
    pool (ours or PgBouncer's) never hands it to another request; outside of one it does nothing.
    """
    conn.execute("SELECT set_config('taximeter.workspace_id', %s, true)", [workspace_id])
