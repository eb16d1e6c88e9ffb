"""PostgreSQL's own time and what its backends wait for."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

from psycopg import Connection

from taximeter_db.sql import statements

_STATEMENTS = statements("server_time")
_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def moment(micros: int) -> dt.datetime:
    """A time in microseconds since the Unix epoch, exactly."""
    return _EPOCH + dt.timedelta(microseconds=micros)


def now(conn: Connection[Any]) -> int:
    """The present time by PostgreSQL, in microseconds since the Unix epoch."""
    row = conn.execute(_STATEMENTS["now"]).fetchone()
    assert row is not None  # noqa: S101 -- it always returns one
    return int(row[0])


def waits_for(conn: Connection[Any], backend_pid: int) -> str | None:
    """What a backend of this user waits for, such as ``IPC: SyncRep``; None if it works, or is none."""
    row = conn.execute(_STATEMENTS["waits_for"], [backend_pid]).fetchone()
    return None if row is None else row[0]
