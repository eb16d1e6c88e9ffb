"""Canaries: proof that what goes into the broker comes out of this worker.

A consumer can be alive, connected and deaf: after a reconnect that half worked, or behind a connection that nobody told that
it is dead. Nothing fails then, so no error tells. Every few seconds each worker publishes two small messages the way an AI
tool would. One goes to a queue of the worker's own, beside those it books from, over the same connection and through the
same threads: its age is the alarm, and no other worker can take it away. The other goes the way of usage, to whichever worker
takes it: its trip is the lag of the whole queue, traffic or not.

A canary is recognised by its first bytes, before anything is decoded; it is acknowledged like any message and never booked.
"""

from __future__ import annotations

import re
import threading
import uuid
from typing import Final

from taximeter import names
from taximeter.brokers.opening import Broker
from taximeter.brokers.transport import Transport
from taximeter_worker.consume.brokers.source import CANARY_QUEUE
from taximeter_worker.guarded_thread import GuardedThread
from taximeter_worker.metrics import Metrics
from taximeter_worker.outage import Outage
from taximeter_worker.server_clock import ServerClock

# A CloudEvents batch, because that is what a queue may hold; a worker of before the canary keeps it in quarantine.
_FORM: Final = b'[{"specversion":"1.0","type":"taximeter.canary.v1","id":"%d"}]'
_READ: Final = re.compile(re.escape(_FORM).replace(b"%d", rb"(\d{1,19})")).fullmatch
_START: Final = _FORM.partition(b"%d")[0]


def canary_body(now: int) -> bytes:
    """A canary that is sent at this time, in microseconds since the Unix epoch."""
    return _FORM % now


class Canary:
    """Publishes canaries from a thread of its own, and notes those that arrive.

    Args:
        broker_url: Where the worker itself receives from.
        seconds: Time between two; 0 sends none.
        metrics: Take the age of the newest arrival and its trip.
        clock: Tells the trip of a canary that another machine sent.
    """

    def __init__(self, broker_url: str, seconds: float, metrics: Metrics, clock: ServerClock) -> None:
        self.routing_key = f"canary.{uuid.uuid4().hex[:12]}"
        """The way to this worker alone."""
        self._url = broker_url
        self._broker: Broker | None = (
            None  # one for all connections: the next begins with the node that did not fail last
        )
        self._seconds = seconds
        self._metrics = metrics
        self._clock = clock
        self._stopping = threading.Event()
        self._transport: Transport | None = None
        self._outage = Outage("canary_not_sent", "canary_sent_again")
        self._thread = GuardedThread("canary", self._run, self._stopping, metrics.thread_failed)

    def start(self) -> None:
        """Start the thread and return."""
        if self._seconds:
            self._metrics.expect_canaries()
            self._thread.start()

    def stop(self) -> None:
        """Send no more."""
        self._stopping.set()
        transport = self._transport
        if transport is not None:
            transport.interrupt()
        self._thread.join(1.0)

    def is_one(self, body: bytes, queue: str) -> bool:
        """Whether a message is a canary; if so, its arrival is noted."""
        if not body.startswith(_START):
            return False
        sent = _READ(body)
        if sent is None:
            return False
        trip = max(0, self._clock.now() - int(sent[1]))
        self._metrics.canary_arrived(None if queue == CANARY_QUEUE else trip)
        return True

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            try:
                self._send()
                self._outage.ended()
            except Exception as error:  # noqa: BLE001 -- whatever the client libraries raise; the age tells
                if not self._stopping.is_set():
                    self._outage.failed(kind=type(error).__name__)
                self._drop()
        self._drop()

    def _send(self) -> None:
        if self._transport is None:
            self._broker = self._broker or Broker(self._url)
            self._transport = self._broker.open()
            self._transport.connect()
        body = canary_body(self._clock.now())
        awaited = {self._transport.publish(key, body) for key in (names.USAGE_ROUTING_KEY, self.routing_key)}
        failed: str | None = None
        # A broker that confirms nothing (an alarm) gets no second one behind the first.
        while awaited and not self._stopping.is_set():
            for settled in self._transport.settle(1.0):
                if settled.tag in awaited:
                    awaited.remove(settled.tag)
                    failed = failed or settled.error
        if failed is not None:
            raise RuntimeError(failed)

    def _drop(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.drop()
