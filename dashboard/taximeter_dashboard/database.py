"""The page's connections to the database, and the end of waiting for one that does not answer.

PostgreSQL ends statements that run too long, as long as it lives. What it cannot end is a commit that waits for a standby that
is gone, or a wait on our side for a server that is frozen: a watchdog breaks those, so that the page answers 503.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from taximeter_dashboard.errors import ProblemError, UnavailableError
from taximeter_db import connect
from taximeter_db.connect import LedgerConnection, Profile
from taximeter_db.errors import DatabaseUnavailableError

CONNECTIONS_MAX: Final = 8
CONNECTION_WAIT_SECONDS: Final = 3.0
CHECK_SECONDS: Final = 2.0
TRANSACTION_SECONDS: Final = 20.0
"""Longer than `statement_timeout`, which ends a long statement of a server that lives."""
PATIENT_SECONDS: Final = 600.0
"""For what may take as long as it takes, such as an exact count."""
COMMIT_SECONDS: Final = 5.0
_CANCEL_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.5
PAGE: Final = Profile(
    "taximeter dashboard",
    {"statement_timeout": "15s", "idle_in_transaction_session_timeout": "60s"},
    prepare_threshold=5,  # to plan a statement over all partitions takes longer than to run it
)
_UNCONFIRMED: Final = "The ledger did not confirm this in time. Look whether it was done before you try again."


class Database:
    """A pool of connections, opened by the first request: a host that mounts us may run no start-up of ours, or several."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._pool: ConnectionPool[LedgerConnection] | None = None
        self._watchdog = Watchdog()

    @contextlib.contextmanager
    def transaction(self, seconds: float = TRANSACTION_SECONDS) -> Iterator[LedgerConnection]:
        """A connection in a transaction. A ProblemError ends it like a success: what was written before it stays.

        Raises:
            UnavailableError: No connection is available, it breaks, or the server does not answer within `seconds`.
        """
        problem: ProblemError | None = None
        try:
            with (
                self._open().connection() as conn,
                self._watchdog.over(conn, seconds) as watch,
                conn.transaction(),
            ):
                try:
                    yield conn
                except ProblemError as raised:
                    problem = raised
                watch.ends_at = time.monotonic() + COMMIT_SECONDS
        except (PoolTimeout, psycopg.OperationalError, DatabaseUnavailableError) as error:
            raise UnavailableError from error
        if watch.expired:
            raise UnavailableError(_UNCONFIRMED)
        if problem is not None:
            raise problem

    def close(self) -> None:
        """Let go of the connections; the next request would open them again."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _open(self) -> ConnectionPool[LedgerConnection]:
        with self._lock:
            if self._pool is None:
                self._pool = ConnectionPool(
                    connection_class=LedgerConnection,
                    kwargs={**connect.arguments(self._url, PAGE), "autocommit": True},
                    configure=lambda conn: conn.prepare_session(PAGE),
                    check=self._check,
                    min_size=1,
                    max_size=CONNECTIONS_MAX,
                    timeout=CONNECTION_WAIT_SECONDS,
                    open=True,
                )
            return self._pool

    def _check(self, conn: LedgerConnection) -> None:
        with self._watchdog.over(conn, CHECK_SECONDS):
            ConnectionPool.check_connection(conn)


class Watch:
    """What the watchdog knows of one wait: when it ends, and whether it had to be ended."""

    def __init__(self, conn: LedgerConnection, ends_at: float) -> None:
        self.conn = conn
        self.ends_at = ends_at
        self.expired = False
        self._lock = threading.Lock()
        self._done = False

    def finish(self) -> None:
        """The wait is over; from here on the connection may be another request's."""
        with self._lock:
            self._done = True

    def end(self) -> None:
        """Cancel what the server does, and break the connection if that does not end the wait."""
        with self._lock:
            if self._done:
                return
            with contextlib.suppress(psycopg.Error, OSError):
                # A commit that waits for a standby ends by it; without, it would keep a process of the server.
                self.conn.cancel_safe(timeout=_CANCEL_SECONDS)
        time.sleep(_LOOK_SECONDS)  # for the server's answer
        with self._lock, contextlib.suppress(psycopg.Error, OSError):
            if not self._done:
                with socket.socket(fileno=os.dup(self.conn.fileno())) as end:
                    end.shutdown(socket.SHUT_RDWR)


class Watchdog:
    """Looks at all waits twice a second, as long as there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watches: set[Watch] = set()
        self._awake = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def over(self, conn: Any, seconds: float) -> Iterator[Watch]:
        """Watch over a connection; the watch can be given another end meanwhile."""
        watch = Watch(conn, time.monotonic() + seconds)
        with self._lock:
            self._watches.add(watch)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._look, name="taximeter-page-watchdog", daemon=True)
                self._thread.start()
            self._awake.set()
        try:
            yield watch
        finally:
            watch.finish()
            with self._lock:
                self._watches.discard(watch)

    def _look(self) -> None:
        while True:
            self._awake.wait()
            time.sleep(_LOOK_SECONDS)
            now = time.monotonic()
            with self._lock:
                expired = [watch for watch in self._watches if now > watch.ends_at and not watch.expired]
                if not self._watches:
                    self._awake.clear()
            for watch in expired:
                watch.expired = True
                threading.Thread(target=watch.end, name="taximeter-page-break", daemon=True).start()
