"""The loop that ties a source to the booker.

One thread receives: it owns the broker's connection, merges what has arrived into batches, and acknowledges. A poster
thread books; of several, each with a database connection of its own, one decodes while PostgreSQL works on another's batch.
Batches may then finish out of order; acknowledged is always the oldest run of finished ones.

Nothing is lost because nothing is acknowledged before it is committed; nothing is booked twice because booking recognises
what comes again. So every failure has the same answer: wait a moment, and do it again.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque

import structlog

from taximeter_worker import failpoints
from taximeter_worker.consume.batch import Booker
from taximeter_worker.consume.brokers.source import Message, Source, make_source
from taximeter_worker.consume.poster import BACKOFF, Batch, Poster, Posting
from taximeter_worker.decode import transfer
from taximeter_worker.errors import SourceLostError
from taximeter_worker.guarded_thread import GuardedThread
from taximeter_worker.logs import where
from taximeter_worker.metrics import Metrics
from taximeter_worker.outage import Outage
from taximeter_worker.settings import Settings

log = structlog.get_logger(__name__)

POLL_SECONDS = 1.0
STEADY_SECONDS = 10.0
"""A connection that lasted this long was a good one: the next back-off begins small."""


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
        self._outage = Outage("broker_lost", "broker_back")
        self._abandon = threading.Event()
        posting = Posting(booker, metrics, settings, self._work, self._abandon, batch_done=self._source.wake)
        self._receiver = GuardedThread("receive", self._receive, self._stopping, metrics.thread_failed)
        self._posters = [
            GuardedThread(f"post-{number}", Poster(posting).run, self._abandon, metrics.thread_failed)
            for number in range(settings.batches_in_flight_max)
        ]

    def start(self) -> None:
        """Start the threads and return."""
        for thread in (*self._posters, self._receiver):
            thread.start()

    def stop(self, seconds: float) -> None:
        """Receive no more, finish and acknowledge what is here, and return after about this many ``seconds`` at most.

        What is not booked by then stays unacknowledged and is delivered again.
        """
        deadline = time.monotonic() + seconds
        self._stopping.set()
        self._source.wake()
        self._receiver.join(seconds)
        self._abandon.set()
        self._source.wake()
        for _ in self._posters:
            self._work.put(None)
        for thread in (self._receiver, *self._posters):
            # One that hangs, in a transaction that PostgreSQL does not end, is left behind: its batch comes again.
            thread.join(max(0.5, deadline - time.monotonic()))

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
                self._outage.ended()
                log.info("broker_connected", generation=self._source.generation)
                self._pump()
            except SourceLostError as lost:
                self._outage.failed(why=str(lost)[:300])
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
            self._stopping.wait(BACKOFF.seconds(attempt))
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
            size += transfer.bytes_estimate(message.body, message.properties, self._settings.message_bytes_max)
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
            self._metrics.receive_lag.observe(max(0.0, time.monotonic() - oldest))

    def _observe(self) -> None:
        held = sum(len(batch.messages) for batch in self._in_flight) + len(self._pending)
        if self._in_flight:
            oldest: float | None = self._in_flight[0].messages[0].received_at
        else:
            oldest = self._pending[0].received_at if self._pending else None
        self._metrics.holding(held, oldest, self._source.depth, self._source.down)
