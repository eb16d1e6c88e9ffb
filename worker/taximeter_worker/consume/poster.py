"""The threads that book: one batch after another, each over a database connection of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import psycopg
import structlog
from psycopg import Connection

from taximeter_db.backoff import Backoff
from taximeter_db.connect import booking_connection
from taximeter_db.crypto import key_register
from taximeter_db.errors import TaximeterDbError
from taximeter_worker.consume.batch import Booker
from taximeter_worker.consume.brokers.source import Message
from taximeter_worker.decode.result import Decoded
from taximeter_worker.logs import first_line, where
from taximeter_worker.metrics import Metrics
from taximeter_worker.outage import Outage
from taximeter_worker.settings import Settings

log = structlog.get_logger(__name__)

BACKOFF = Backoff(0.1, 5.0)
FAULTS_MAX = 3
"""How often our own code may fail on one batch before its messages are quarantined one by one."""


class Batch:
    """Messages that are booked together."""

    __slots__ = ("done", "generation", "messages")

    def __init__(self, messages: list[Message], generation: int) -> None:
        self.messages = messages
        self.generation = generation
        self.done = threading.Event()


class Posting(NamedTuple):
    """What all posters of a consumer share.

    ``work`` brings batches and, at the end, None for each poster; ``abandon`` is set where what is not booked yet is to be
    left to the broker; ``batch_done`` tells the consumer to look.
    """

    booker: Booker
    metrics: Metrics
    settings: Settings
    work: queue.SimpleQueue[Batch | None]
    abandon: threading.Event
    batch_done: Callable[[], None]


class Poster:
    """Books what its consumer has received."""

    def __init__(self, posting: Posting) -> None:
        self._posting = posting
        self._session = Session(posting.settings)
        self._batch: Batch | None = None
        self._outage = Outage("booking_waits", "booking_goes_on")

    def run(self) -> None:
        """Book until the consumer ends. Run again after a failure, it goes on with the batch that it was at."""
        self._session.close()
        while (batch := self._batch or self._posting.work.get()) is not None:
            self._batch = batch
            if self._book(batch.messages):
                batch.done.set()
                self._posting.batch_done()
            self._batch = None
        self._session.close()

    def _book(self, messages: list[Message]) -> bool:
        """Book until it is done; False when the worker gives up first because it must end."""
        decoded: Decoded | None = None
        attempt = faults = 0
        while not self._posting.abandon.is_set():
            try:
                decoded = decoded or self._posting.booker.decode(messages)
                self._session.run(self._posting.booker.book, decoded)
            except (psycopg.Error, TaximeterDbError) as error:
                self._posting.metrics.database_errors.inc()
                self._outage.failed(why=first_line(error))
            except Exception as error:  # noqa: BLE001 -- as the comment says
                # Our own mistake. It must not hold up everything behind it, nor lose anything.
                faults += 1
                log.critical("booking_failed", kind=type(error).__name__, where=where(error), messages=len(messages))
                if faults >= FAULTS_MAX:
                    return self._book_one_by_one(messages, error)
            else:
                self._outage.ended()
                return True
            self._session.close()
            self._posting.abandon.wait(BACKOFF.seconds(attempt))
            attempt += 1
        return False

    def _book_one_by_one(self, messages: list[Message], error: Exception) -> bool:
        if len(messages) > 1:
            return all(self._book([message]) for message in messages)
        unbookable = Decoded([], [], [])
        unbookable.rejected.append(
            messages[0].rejected(
                "internal_error",
                f"The worker itself failed on this message ({type(error).__name__}); its log says where. "
                "Replay it with a version that corrects the fault.",
            )
        )
        try:
            self._session.run(self._posting.booker.book, unbookable)
        except (psycopg.Error, TaximeterDbError):
            self._session.close()
            return self._book(messages)
        return True


class Session:
    """A booking connection that is made when it is needed, and again when it broke."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._checked_in = False
        self._conn: Connection[Any] | None = None

    def run(self, work: Callable[[Connection[Any], Decoded], None], batch: Decoded) -> None:
        """Call ``work`` with the connection and the batch; raises what it raises."""
        if self._conn is None or self._conn.closed:
            self._conn = booking_connection(self._settings.database_url)
        if not self._checked_in:
            key_register.check_in(self._conn, self._settings.masters)
            self._checked_in = True
        work(self._conn, batch)

    def close(self) -> None:
        """Disconnect; the next ``run`` connects again."""
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()
