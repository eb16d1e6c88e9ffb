"""The workspaces of whoever asks, a page at a time: for the page and for the API alike."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from psycopg import Connection

from taximeter_dashboard.auth.viewers import EVERY_WORKSPACE, OPERATOR, STAFF, Viewer
from taximeter_db import access
from taximeter_db.queries import scope, summary


def listed(conn: Connection[Any], viewer: Viewer, after: str, limit: int) -> tuple[list[summary.Glance], str | None]:
    """The next workspaces by id, and the id after which more follow, if any. A balance is for who may look at it."""
    glances: list[summary.Glance] = []
    while len(glances) <= limit:
        more = summary.glances(conn, viewer.workspace_ids, after, limit + 1)
        glances += [glance for glance in more if _may_look(conn, viewer, glance.workspace_id)]
        if len(more) <= limit:
            break
        after = more[-1].workspace_id
    return glances[:limit], glances[limit - 1].workspace_id if len(glances) > limit else None


def log_listing(request: Request, conn: Connection[Any], viewer: Viewer) -> None:
    """Write down that an operator saw the list, which is a look at every workspace."""
    if viewer.role(EVERY_WORKSPACE) == OPERATOR:
        scope.enter(conn, EVERY_WORKSPACE)  # not the id of any workspace: it opens the log of looks and no rows
        access.log_look(conn, EVERY_WORKSPACE, viewer.subject, request.url.path[:1000])


def _may_look(conn: Connection[Any], viewer: Viewer, workspace_id: str) -> bool:
    if viewer.role(workspace_id) != STAFF:
        return True
    scope.enter(conn, workspace_id)
    return access.may_read(conn, workspace_id, viewer.subject)
