"""Looks for notices that are due, and asks for a deliverer: after a booking that may have written some, and ten times a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psycopg import Connection

from taximeter_db.notices import deliveries

NOTICE_WATCH_SECONDS = 0.1


class NoticeWatch:
    """Calls `due` where something is to be delivered, whoever wrote it: a worker, the page, the command line."""

    def __init__(self, due: Callable[[], None]) -> None:
        self._due = due

    def __call__(self, conn: Connection[Any]) -> None:
        """One look."""
        if deliveries.is_due(conn):
            self._due()
