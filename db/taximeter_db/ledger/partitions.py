"""The time slices of the usage log: made days ahead, and never in booking's way.

A slice is made as a table of its own and then attached, which waits for no reader and makes no booking wait. What it does
wait for (another that makes partitions, a vacuum) it waits for two seconds at most; the next try is the caller's.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any, Final

import psycopg
from psycopg import Connection

from taximeter_db.sql import statements

AHEAD_DAYS: Final = 60
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_SQL = statements("partitions")


def ensure(conn: Connection[Any], ahead_days: int = AHEAD_DAYS) -> int:
    """Make the partitions that will be needed within the next days; returns how many were missing.

    Safe to call at any time and from several workers at once (an advisory lock orders them).

    Raises:
        psycopg.errors.LockNotAvailable: Somebody was in the way for too long. Call again later.
    """
    row = conn.execute(_SQL["ensure"], {"days": ahead_days}).fetchone()
    return int(row[0]) if row else 0


def ensure_at(conn: Connection[Any], moments: Iterable[int]) -> bool:
    """Make the partitions for these times (microseconds since the Unix epoch), however far from now they lie.

    Returns:
        Whether each has a partition now; if not, somebody was in the way or this schema is too old for it.
    """
    try:
        for moment in moments:
            conn.execute(_SQL["ensure_at"], {"moment": _EPOCH + dt.timedelta(microseconds=moment)})
    except psycopg.errors.UndefinedFunction:  # a schema before 0014
        return ensure(conn) > 0
    except (psycopg.errors.LockNotAvailable, OverflowError):
        return False
    return True


def ahead_seconds(conn: Connection[Any]) -> float:
    """For how long from now on the log has partitions without a gap."""
    row = conn.execute(_SQL["ahead"]).fetchone()
    return float(row[0]) if row and row[0] is not None else 0.0
