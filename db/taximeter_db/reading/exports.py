"""Exports under way and gone by: their progress, and how one is called off."""

from __future__ import annotations

from typing import Any

import msgspec
from psycopg import Connection

_BEGIN = """
INSERT INTO taximeter.exports (workspace_id, ticket, log, format, filter, begun_by, rows_total)
VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING ticket
"""
_MOVE = """
UPDATE taximeter.exports SET rows_done = %(rows)s, moved_at = clock_timestamp()
WHERE workspace_id = %(workspace_id)s AND ticket = %(ticket)s AND state = 'running' RETURNING ticket
"""
_END = """
UPDATE taximeter.exports SET state = %(state)s, moved_at = clock_timestamp()
WHERE workspace_id = %(workspace_id)s AND ticket = %(ticket)s AND state = 'running' RETURNING ticket
"""
_READ = "SELECT state, rows_done, rows_total FROM taximeter.exports WHERE workspace_id = %s AND ticket = %s"


class Export(msgspec.Struct, frozen=True):
    """How far an export is. `state` is ``running``, ``done``, ``cancelled`` or ``failed``; `total` None where unknown."""

    state: str
    done: int
    total: int | None


def begin(
    conn: Connection[Any],
    workspace_id: str,
    ticket: str,
    *,
    log: str,
    kind: str,
    query: str,
    by: str,
    total: int | None,
) -> bool:
    """Write down that an export begins; False if the ticket was used before."""
    return conn.execute(_BEGIN, [workspace_id, ticket, log, kind, query, by, total]).fetchone() is not None


def move(conn: Connection[Any], workspace_id: str, ticket: str, rows: int) -> bool:
    """Write down how many rows are done; False if it was called off meanwhile."""
    values = {"workspace_id": workspace_id, "ticket": ticket, "rows": rows}
    return conn.execute(_MOVE, values).fetchone() is not None


def end(conn: Connection[Any], workspace_id: str, ticket: str, state: str) -> bool:
    """Let a running export be ``done``, ``cancelled`` or ``failed``; False if it was not running."""
    values = {"workspace_id": workspace_id, "ticket": ticket, "state": state}
    return conn.execute(_END, values).fetchone() is not None


def read(conn: Connection[Any], workspace_id: str, ticket: str) -> Export | None:
    """How far an export is; None where there is none."""
    row = conn.execute(_READ, [workspace_id, ticket]).fetchone()
    return Export(*row) if row else None
