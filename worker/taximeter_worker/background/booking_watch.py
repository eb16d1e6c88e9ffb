"""Says what PostgreSQL waits for while a transaction of ours does not end."""

from __future__ import annotations

from typing import Any

import structlog
from psycopg import Connection

from taximeter_db import server_time
from taximeter_worker.consume.running import RunningBookings

log = structlog.get_logger(__name__)

BOOKING_WATCH_SECONDS = 1.0
SLOW_SECONDS = 5.0
_HINTS = {
    "IPC: SyncRep": "a synchronous standby does not confirm: bring it back, or take it out of synchronous_standby_names",
    "Lock: transactionid": "another transaction holds a row: see pg_blocking_pids() for who does",
    "Lock: relation": "another transaction holds the table: see pg_blocking_pids() for who does",
}


class BookingWatch:
    """Logs a transaction that takes long once, with what it waits for, and once more when it has ended."""

    def __init__(self, running: RunningBookings) -> None:
        self._running = running
        self._told: float | None = None

    def __call__(self, conn: Connection[Any]) -> None:
        """One look."""
        running = self._running.oldest()
        if self._told is not None and (running is None or running.began != self._told):
            log.info("booking_ended_waiting")
            self._told = None
        if running is None or self._told is not None or running.seconds < SLOW_SECONDS:
            return
        waits_for = server_time.waits_for(conn, running.backend_pid)
        log.warning(
            "booking_hangs",
            seconds=round(running.seconds),
            postgresql_waits_for=waits_for or "nothing: it works on it",
            hint=_HINTS.get(waits_for or "", "see pg_stat_activity"),
        )
        self._told = running.began
