"""Which workspace a transaction may see, for database users under row-level security."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from taximeter_db.sql import statements

_ENTER = statements("page_workspaces")["enter"]


def enter(conn: Connection[Any], workspace_id: str) -> None:
    """Let the rest of the transaction see this workspace's rows and no other's.

    Call it only after the person was found to have a role in the workspace. It ends with the transaction, so that a
    pool (ours or PgBouncer's) never hands it to another request; outside of one it does nothing.
    """
    conn.execute(_ENTER, {"workspace_id": workspace_id})
