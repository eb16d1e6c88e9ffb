"""The time slices of the usage log, made ahead."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

AHEAD_DAYS = 60


def ensure(conn: Connection[Any], ahead_days: int = AHEAD_DAYS) -> int:
    """Make the partitions that will be needed within the next days; returns how many were missing.

    Safe to call at any time and from several workers at once (an advisory lock orders them).
    """
    row = conn.execute("SELECT taximeter.ensure_partitions(now() + make_interval(days => %s))", [ahead_days]).fetchone()
    return int(row[0]) if row else 0
