"""The loop that ties a source to the booker.

One thread receives: it owns the broker's connection, merges what has arrived into batches, and acknowledges. A poster
thread books; of several, each with a database connection of its own, one decodes while PostgreSQL works on another's batch.
Batches may then finish out of order; acknowledged is always the oldest run of finished ones.

Nothing is lost because nothing is acknowledged before it is committed; nothing is booked twice because booking recognises
what comes again. So every failure has the same answer: wait a moment, and do it again.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import psycopg
import structlog
from psycopg import Connection

from taximeter_db.connect import booking_connection
from taximeter_db.errors import TaximeterDbError
from taximeter_db.events import Rejected
from taximeter_worker import failpoints
from taximeter_worker.booker import Booker
from taximeter_worker.decode import Decoded
from taximeter_worker.errors import SourceLost
from taximeter_worker.logs import first_line, where
from taximeter_worker.metrics import Metrics
from taximeter_worker.settings import Settings
from taximeter_worker.sources import Message, Source, make_source

log = structlog.get_logger(__name__)

POLL_SECONDS = 1.0
BACKOFF_SECONDS = 0.1
BACKOFF_SECONDS_MAX = 5.0
STEADY_SECONDS = 10.0
"""A connection that lasted so long was a good one: the next back-off begins small."""
FAULTS_MAX = 3
"""So often may our own code fail on one batch before its messages are parked one by one."""


def backoff_seconds(attempt: int) -> float:
    """Exponential, capped, and spread so that many workers do not come back at the same moment."""
    spread: float = random.uniform(0.5, 1)  # noqa: S311 -- no secret
    return min(BACKOFF_SECONDS * 2.0 ** min(attempt, 10), BACKOFF_SECONDS_MAX) * spread


class Batch:
    """Messages that are booked together."""

    __slots__ = ("done", "generation", "messages")

    def __init__(self, messages: list[Message], generation: int) -> None:
        self.messages = messages
        self.generation = generation
        self.done = threading.Event()


class Consumer:
    """Receives, books and acknowledges until it is stopped.

    ``ready`` is set once there is a price book; before that nothing is taken from the broker.
    """

    def __init__(
        self,
        settings: Settings,
        booker: Booker,
        metrics: Metrics,
        *,
        ready: threading.Event,
        source: Source | None = None,
    ) -> None:
        self._settings = settings
        self._ready = ready
        self._booker = booker
        self._metrics = metrics
        self._source = source or make_source(settings)
        self._pending: list[Message] = []
        self._in_flight: deque[Batch] = deque()
        self._work: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._abandon = threading.Event()
        self._receiver = threading.Thread(target=self._receive, name="taximeter-receive", daemon=True)
        self._posters = [
            threading.Thread(target=self._post, name=f"taximeter-post-{number}", daemon=True)
            for number in range(settings.batches_in_flight_max)
        ]

    def start(self) -> None:
        """Start the threads and return."""
        for thread in (*self._posters, self._receiver):
            thread.start()

    def stop(self) -> None:
        """Receive no more, finish and acknowledge what is here, and return within the drain time.

        What is not booked by then stays unacknowledged and is delivered again.
        """
        deadline = time.monotonic() + self._settings.drain_seconds
        self._stopping.set()
        self._source.wake()
        if self._receiver.ident is not None:
            self._receiver.join(self._settings.drain_seconds)
        self._abandon.set()
        self._source.wake()
        for _ in self._posters:
            self._work.put(None)
        for thread in (self._receiver, *self._posters):
            if thread.ident is not None:
                thread.join(max(1.0, deadline - time.monotonic()))

    # -- the receiving thread ---------------------------------------------------------------------------------------

    def _receive(self) -> None:
        while not self._ready.wait(POLL_SECONDS) and not self._stopping.is_set():
            pass
        attempt = 0
        while not self._stopping.is_set():
            opened_at = time.monotonic()
            try:
                self._source.open()
                self._metrics.broker_connected.set(1)
                log.info("broker_connected", generation=self._source.generation)
                self._pump()
            except SourceLost as lost:
                log.warning("broker_lost", why=str(lost)[:300], attempt=attempt)
            except Exception as error:  # noqa: BLE001 -- a thread's outermost frame
                # A bug here must not end in a worker that looks alive and does nothing.
                log.critical("receiving_failed", kind=type(error).__name__, where=where(error))
            if self._stopping.is_set():
                break  # what is still in flight is booked below or comes again; both are right
            # The broker delivers again whatever was not acknowledged: what waits here would be booked for nothing.
            self._pending = []
            self._metrics.reconnects.inc()
            self._metrics.broker_connected.set(0)
            attempt = 0 if time.monotonic() - opened_at > STEADY_SECONDS else attempt + 1
            self._stopping.wait(backoff_seconds(attempt))
            self._settle(acknowledge=False)
        self._metrics.broker_connected.set(0)
        self._source.close()

    def _pump(self) -> None:
        """Receive and acknowledge on one connection, until stopped or the connection is lost."""
        paused = False
        while not self._abandon.is_set():
            self._settle(acknowledge=True)
            if self._stopping.is_set():
                if not paused:
                    self._source.pause()
                    paused = True
                if not self._pending and not self._in_flight:
                    return
            # The last poll drained the channel, so there is nothing to wait for: the batch goes out now, and before the next
            # poll, which waits; a batch that was just finished has made room for it.
            while self._pending and self._free:
                self._submit()
            self._observe()
            messages = self._source.poll(POLL_SECONDS)
            for message in messages:
                self._metrics.messages.labels(message.queue).inc()
            self._pending += messages
            if messages:
                failpoints.hit("after_receive")

    @property
    def _free(self) -> bool:
        return len(self._in_flight) < self._settings.batches_in_flight_max

    def _submit(self) -> None:
        """Hand the oldest pending messages to a poster: about one transaction's worth."""
        count, size, events = 0, 0, 0
        for message in self._pending:
            size += len(message.body)
            # A guess that is exact for well-formed events: the name of this field cannot occur unescaped within a string.
            events += max(1, message.body.count(b'"specversion"'))
            if count and (size > self._settings.batch_bytes_max or events > self._settings.batch_events_max):
                break
            count += 1
        batch = Batch(self._pending[:count], self._source.generation)
        del self._pending[:count]
        self._in_flight.append(batch)
        self._work.put(batch)

    def _settle(self, *, acknowledge: bool) -> None:
        """Acknowledge the oldest finished batches. Those of an earlier connection are only forgotten."""
        count, oldest = 0, 0.0
        while self._in_flight and self._in_flight[0].done.is_set():
            batch = self._in_flight.popleft()
            if batch.generation == self._source.generation:
                oldest = oldest or batch.messages[0].received_at
                count += len(batch.messages)
        if count and acknowledge and not self._abandon.is_set():
            failpoints.hit("before_ack")
            self._source.ack(count)
            failpoints.hit("after_ack")
            self._metrics.receive_lag.observe(max(0.0, time.time() - oldest))

    def _observe(self) -> None:
        held = sum(len(batch.messages) for batch in self._in_flight) + len(self._pending)
        if self._in_flight:
            oldest: float | None = self._in_flight[0].messages[0].received_at
        else:
            oldest = self._pending[0].received_at if self._pending else None
        self._metrics.holding(held, oldest, self._source.depth, self._source.down)

    # -- the posting threads ----------------------------------------------------------------------------------------

    def _post(self) -> None:
        session = Session(self._settings.database_url)
        while (batch := self._work.get()) is not None:
            if self._book(session, batch.messages):
                batch.done.set()
                self._source.wake()
        session.close()

    def _book(self, session: Session, messages: list[Message]) -> bool:
        """Book until it is done; False when the worker gives up first because it must end."""
        decoded: Decoded | None = None
        attempt = faults = 0
        while not self._abandon.is_set():
            try:
                decoded = decoded or self._booker.decode(messages)
                session.run(self._booker.book, decoded)
            except (psycopg.Error, TaximeterDbError) as error:
                self._metrics.database_errors.inc()
                log.warning("booking_waits", why=first_line(error), attempt=attempt)
            except Exception as error:  # noqa: BLE001 -- as the comment says
                # Our own mistake. It must not hold up everything behind it, nor lose anything.
                faults += 1
                log.critical("booking_failed", kind=type(error).__name__, where=where(error), messages=len(messages))
                if faults >= FAULTS_MAX:
                    return self._book_one_by_one(session, messages, error)
            else:
                return True
            session.close()
            self._abandon.wait(backoff_seconds(attempt))
            attempt += 1
        return False

    def _book_one_by_one(self, session: Session, messages: list[Message], error: Exception) -> bool:
        if len(messages) > 1:
            return all(self._book(session, [message]) for message in messages)
        message = messages[0]
        parked = Decoded([], [], [])
        parked.rejected.append(
            Rejected(
                reason="internal_error",
                detail=f"The worker itself failed on this message ({type(error).__name__}); its log says where. "
                "Replay it with a version that has the fault mended.",
                event=message.body,
                content_type=message.content_type,
                kind="payment" if message.may_pay else "message",
            )
        )
        try:
            session.run(self._booker.book, parked)
        except (psycopg.Error, TaximeterDbError):
            session.close()
            return self._book(session, messages)
        return True


class Session:
    """A booking connection that is made when it is needed and made anew when it broke."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._conn: Connection[Any] | None = None

    def run(self, work: Callable[[Connection[Any], Decoded], None], batch: Decoded) -> None:
        """Call ``work`` with the connection and the batch; raises what it raises."""
        if self._conn is None or self._conn.closed:
            self._conn = booking_connection(self._url)
        work(self._conn, batch)

    def close(self) -> None:
        """Disconnect; the next ``run`` connects again."""
        conn, self._conn = self._conn, None
        if conn is not None:
            conn.close()
