"""What time it is by PostgreSQL, which all workers share; a machine's own clock may be minutes away."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from psycopg import Connection

from taximeter_db import server_time

READ_SECONDS = 5.0
_MICROSECOND_NANOSECONDS = 1000


def _monotonic() -> int:
    return time.monotonic_ns() // _MICROSECOND_NANOSECONDS


class ServerClock:
    """PostgreSQL's clock, carried on by this machine's monotonic one between two readings and while PostgreSQL is away.

    Before the first reading it is this machine's clock. Times are microseconds since the Unix epoch.
    """

    def __init__(self, monotonic: Callable[[], int] = _monotonic) -> None:
        self._monotonic = monotonic
        self._ahead = time.time_ns() // _MICROSECOND_NANOSECONDS - monotonic()
        self._read_at: int | None = None

    def now(self) -> int:
        """The present time."""
        return self._monotonic() + self._ahead

    def refresh(self, conn: Connection[Any]) -> None:
        """Read PostgreSQL's clock if it is time to."""
        now = self._monotonic()
        if self._read_at is None or now - self._read_at > READ_SECONDS * 1_000_000:
            self._ahead = server_time.now(conn) - self._monotonic()
            self._read_at = now
