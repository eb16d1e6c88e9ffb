"""What a worker does beside booking: watch the price book, keep the flags whole, read the gauges.

Each chore is a thread with a database connection of its own, because none may make another late.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import structlog
from psycopg import Connection

from taximeter import names
from taximeter_db import flags_state, ledger, partitions
from taximeter_db.connect import connect
from taximeter_db.errors import TaximeterDbError
from taximeter_worker import flags
from taximeter_worker.booker import Prices
from taximeter_worker.errors import FlagsUnavailable, MetricsPortTaken
from taximeter_worker.ledger_gauges import LedgerGauges
from taximeter_worker.logs import first_line, where
from taximeter_worker.metrics import Endpoint, Metrics
from taximeter_worker.pricing import current_revision, load_book
from taximeter_worker.rebuild import rebuild

log = structlog.get_logger(__name__)

PRICE_WATCH_SECONDS = 0.5
FLAG_WATCH_SECONDS = 1.0
UPKEEP_SECONDS = 5.0
QUIET_ROUNDS = 60
"""A chore that keeps failing for the same reason says so once in so many rounds."""


class Chore:
    """Calls ``work(conn)`` again and again until it is stopped; survives the database's absence."""

    def __init__(self, name: str, database_url: str, seconds: float, work: Callable[[Connection[Any]], None]) -> None:
        self._name = name
        self._url = database_url
        self._seconds = seconds
        self._work = work
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"taximeter-{name}", daemon=True)

    def start(self) -> None:
        """Start the thread and return."""
        self._thread.start()

    def stop(self) -> None:
        """Ask for the end; ``join`` waits for it."""
        self._stopped.set()

    def join(self, timeout_seconds: float) -> None:
        """Wait until the present round is over, or the time is."""
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        conn: Connection[Any] | None = None
        failed = 0
        while not self._stopped.is_set():
            try:
                if conn is None or conn.closed:
                    conn = connect(self._url, application_name=f"taximeter {self._name}")
                self._work(conn)
                failed = 0
            except (psycopg.Error, TaximeterDbError, FlagsUnavailable) as error:
                if failed % QUIET_ROUNDS == 0:
                    log.warning("chore_waits", chore=self._name, why=first_line(error))
                failed += 1
                if conn is not None and not isinstance(error, FlagsUnavailable):
                    conn.close()
            except Exception as error:  # noqa: BLE001 -- a thread's outermost frame
                # A chore that dies silently would be missed only when it is needed.
                log.critical("chore_failed", chore=self._name, kind=type(error).__name__, where=where(error))
                failed += 1
            self._stopped.wait(self._seconds)
        if conn is not None:
            conn.close()


class PriceWatch:
    """Puts a changed price book into use; ``changed`` is called after each change but the first."""

    def __init__(self, prices: Prices, metrics: Metrics, changed: Callable[[], None]) -> None:
        self._prices = prices
        self._metrics = metrics
        self._changed = changed

    def __call__(self, conn: Connection[Any]) -> None:
        """One look."""
        before = self._prices.book
        if before is not None and current_revision(conn) == before.revision:
            return
        book = load_book(conn)
        self._prices.use(book)
        self._metrics.price_revision.set(book.revision)
        log.info("price_book_loaded", revision=book.revision)
        if before is not None:
            self._changed()


class FlagWatch:
    """Makes a cold flag cache warm, also after the database went back in time, and pays the flags that booking could not write."""

    def __init__(self, writer: flags.FlagWriter) -> None:
        self._writer = writer

    def __call__(self, conn: Connection[Any]) -> None:
        """One look."""
        if not self._writer.available:
            return
        seen: flags_state.Place | None = self._writer.call(flags.read_place)
        # Read after what Redis has seen of it, whichever worker noted that: then it is further on, or history is another.
        place = flags_state.place(conn)
        if seen and place and place.went_back_from(seen):
            log.critical("database_behind_flags", seen=seen, now=place, hint="it was restored; all flags are made anew")
            self._writer.call(flags.forget_ready)
        if not self._writer.call(_is_warm):
            self._writer.call(lambda client: rebuild(conn, client, only_if_cold=True))
        if place and place != seen:
            self._writer.call(flags.note_place, place)
        debts = flags_state.stale(conn)
        if debts:
            states = ledger.read_states(conn, [workspace_id for workspace_id, _ in debts])
            self._writer.call(flags.write_states, states)
            flags_state.settle_stale(conn, debts)
            log.info("flags_paid", workspaces=len(debts))


def _is_warm(client: flags.Client) -> bool:
    return bool(client.exists(names.FLAGS_READY))


class Upkeep:
    """Partitions at start (later by beat), the metrics port if it was taken, the listed workspaces' gauges."""

    def __init__(self, gauges: LedgerGauges, endpoint: Endpoint) -> None:
        self._gauges = gauges
        self._endpoint = endpoint
        self._partitions_made = False

    def __call__(self, conn: Connection[Any]) -> None:
        """One round."""
        if not self._endpoint.serving:
            try:
                self._endpoint.start()
            except MetricsPortTaken as error:
                log.warning("metrics_not_served", why=str(error))
        if not self._partitions_made:
            partitions.ensure(conn)
            self._partitions_made = True
        self._gauges.refresh_listed(conn)
