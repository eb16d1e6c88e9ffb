"""Closes the months of workspaces that are over, so that their statements are there before somebody asks."""

from __future__ import annotations

import time
from typing import Any

import structlog
from psycopg import Connection

from taximeter_db.connect import connection
from taximeter_db.errors import StatementError
from taximeter_db.statements import reading
from taximeter_worker.tasks.definition import TaskDefinition

SECONDS = 15 * 60.0
BUDGET_SECONDS = 60.0
CLOSE_STATEMENTS = TaskDefinition("taximeter.close_statements", every_seconds=SECONDS, expires_seconds=SECONDS)

log = structlog.get_logger(__name__)


def close_due(database_url: str) -> int:
    """`close_statements` on a connection of its own: the task."""
    with connection(database_url) as conn:
        return close_statements(conn)


def close_statements(conn: Connection[Any]) -> int:
    """Close months for a minute; the next round goes on. Returns how many statements were stored.

    Raises:
        StatementError: Some workspaces' logs do not add up, as the log names them; the others' months are closed.
    """
    ends = time.monotonic() + BUDGET_SECONDS
    done = 0
    failed: StatementError | None = None
    after = ""
    while time.monotonic() < ends and (workspaces := reading.due(conn, after=after)):
        for workspace_id in workspaces:
            try:
                done += reading.close(conn, workspace_id)
            except StatementError as error:
                log.warning("statement_not_closed", workspace=workspace_id, reason=str(error))
                failed = error
            if time.monotonic() >= ends:
                break
        after = workspaces[-1]
    if failed is not None:
        raise failed
    return done
