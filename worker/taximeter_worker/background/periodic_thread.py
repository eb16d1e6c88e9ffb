"""A thread that calls one function periodically, and when it is woken, with a database connection of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import structlog
from psycopg import Connection

from taximeter_db.connect import connect
from taximeter_db.errors import TaximeterDbError
from taximeter_worker.errors import FlagsUnavailableError
from taximeter_worker.guarded_thread import GuardedThread
from taximeter_worker.logs import first_line, where
from taximeter_worker.outage import Outage

log = structlog.get_logger(__name__)


class PeriodicThread:
    """Calls ``work(conn)`` again and again until it is stopped; survives the database's absence."""

    def __init__(
        self,
        name: str,
        database_url: str,
        seconds: float,
        work: Callable[[Connection[Any]], None],
        thread_failed: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self._name = name
        self._url = database_url
        self._seconds = seconds
        self._work = work
        self._stopped = threading.Event()
        self._woken = threading.Event()
        self._conn: Connection[Any] | None = None
        self._outage = Outage("background_waits", "background_goes_on")
        self._thread = GuardedThread(name, self._run, self._stopped, thread_failed)

    def start(self) -> None:
        """Start the thread and return."""
        self._thread.start()

    def stop(self) -> None:
        """Ask for the end; ``join`` waits for it."""
        self._stopped.set()
        self._woken.set()

    def wake(self) -> None:
        """Call the function soon, and not only when its time has come; once for any number of calls meanwhile."""
        self._woken.set()

    def join(self, timeout_seconds: float) -> None:
        """Wait until the present round is over, or the time is."""
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        try:
            self._rounds()
        finally:
            self._disconnect()

    def _disconnect(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()

    def _rounds(self) -> None:
        while not self._stopped.is_set():
            self._woken.clear()
            try:
                if self._conn is None or self._conn.closed:
                    self._conn = connect(self._url, application_name=f"taximeter {self._name}")
                self._work(self._conn)
                self._outage.ended(thread=self._name)
            except (psycopg.Error, TaximeterDbError, FlagsUnavailableError) as error:
                self._outage.failed(thread=self._name, why=first_line(error))
                if not isinstance(error, FlagsUnavailableError):
                    self._disconnect()
            except Exception as error:  # noqa: BLE001 -- a thread's outermost frame
                # A thread that dies silently would be missed only when it is needed.
                if not self._outage.lasts:
                    log.critical("background_failed", thread=self._name, kind=type(error).__name__, where=where(error))
                self._outage.failed(thread=self._name, why=type(error).__name__)
            if not self._stopped.is_set():  # `stop` may have woken it before it was cleared above
                self._woken.wait(self._seconds)
