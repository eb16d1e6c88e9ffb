"""Exports that run or have ended: their progress, and how one is cancelled. Reading and writing."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from psycopg import Connection
from sqlalchemy import bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert

from taximeter_db.core import Statement
from taximeter_db.models import page

_BEGIN = Statement(
    insert(page.Export)
    .values(
        {
            name: bindparam(name)
            for name in ("workspace_id", "ticket", "log", "format", "filter", "begun_by", "rows_total")
        }
    )
    .on_conflict_do_nothing()
    .returning(page.Export.ticket)
)
_NAMED: Final = (
    page.Export.workspace_id == bindparam("workspace_id"),
    page.Export.ticket == bindparam("ticket"),
)
_RUNNING = (*_NAMED, page.Export.state == "running")
_MOVE = Statement(
    update(page.Export).where(*_RUNNING).values(rows_done=bindparam("rows"), moved_at=func.clock_timestamp())
)
_END = Statement(update(page.Export).where(*_RUNNING).values(state=bindparam("end"), moved_at=func.clock_timestamp()))
_READ = Statement(select(page.Export.state, page.Export.rows_done, page.Export.rows_total).where(*_NAMED))


class Request(msgspec.Struct, frozen=True):
    """An export as it was asked for: which log, in which format, filtered by which query, by whom; `total` rows, if known."""

    log: str
    format: str
    query: str
    by: str
    total: int | None


class Export(msgspec.Struct, frozen=True):
    """How far an export is. `state` is ``running``, ``done``, ``cancelled`` or ``failed``; `total` None where unknown."""

    state: str
    done: int
    total: int | None


def begin(conn: Connection[Any], workspace_id: str, ticket: str, request: Request) -> bool:
    """Write down that an export begins; False if the ticket was used before."""
    values = {
        "log": request.log,
        "format": request.format,
        "filter": request.query,
        "begun_by": request.by,
        "rows_total": request.total,
    }
    return _BEGIN.first(conn, workspace_id=workspace_id, ticket=ticket, **values) is not None


def move(conn: Connection[Any], workspace_id: str, ticket: str, rows: int) -> bool:
    """Write down how many rows are done; False if it was cancelled meanwhile."""
    return _MOVE.run(conn, workspace_id=workspace_id, ticket=ticket, rows=rows) > 0


def end(conn: Connection[Any], workspace_id: str, ticket: str, state: str) -> bool:
    """Let a running export be ``done``, ``cancelled`` or ``failed``; False if it was not running."""
    return _END.run(conn, workspace_id=workspace_id, ticket=ticket, end=state) > 0


def read(conn: Connection[Any], workspace_id: str, ticket: str) -> Export | None:
    """How far an export is; None where there is none."""
    row = _READ.first(conn, workspace_id=workspace_id, ticket=ticket)
    return Export(*row) if row else None
