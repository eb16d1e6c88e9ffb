"""A canary: proof that what goes into the broker comes out of this worker.

A consumer can be alive, connected and deaf: after a reconnect that half worked, or behind a connection that nobody told that
it is dead. Nothing fails then, so no error tells. Every few seconds each worker publishes a small message the way an AI tool
would, and notes when such a message, its own or another's, has come to its posting threads. Its age is the alarm, its trip
the lag of the whole queue, traffic or not.

A canary is recognised by its first bytes, before anything is decoded; it is acknowledged like any message and never booked.
"""

from __future__ import annotations

import re
import threading
import time
from typing import Final

import structlog

from taximeter import names
from taximeter.transports import Transport, open_transport
from taximeter_worker.metrics import Metrics

log = structlog.get_logger(__name__)

# A CloudEvents batch, because that is what a queue may hold; a worker of before the canary keeps it in quarantine.
_FORM: Final = b'[{"specversion":"1.0","type":"taximeter.canary.v1","id":"%d"}]'
_READ: Final = re.compile(re.escape(_FORM).replace(b"%d", rb"(\d{1,19})")).fullmatch
_START: Final = _FORM.partition(b"%d")[0]
QUIET_ROUNDS: Final = 60


def canary_body(now: int) -> bytes:
    """A canary that is sent at this time, in microseconds since the Unix epoch."""
    return _FORM % now


class Canary:
    """Publishes canaries from a thread of its own, and notes those that arrive.

    Args:
        broker_url: Where the worker itself receives from.
        seconds: Time between two; 0 sends none.
        metrics: Take the age of the newest arrival and its trip.
    """

    def __init__(self, broker_url: str, seconds: float, metrics: Metrics) -> None:
        self._url = broker_url
        self._seconds = seconds
        self._metrics = metrics
        self._stopping = threading.Event()
        self._transport: Transport | None = None
        self._failed = 0
        self._thread = threading.Thread(target=self._run, name="taximeter-canary", daemon=True)

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
        if self._thread.ident is not None:
            self._thread.join(1.0)

    def is_one(self, body: bytes) -> bool:
        """Whether a message is a canary; if so, its arrival is noted."""
        if not body.startswith(_START):
            return False
        found = _READ(body)
        if found is None:
            return False
        self._metrics.canary_arrived(max(0, time.time_ns() // 1000 - int(found[1])))
        return True

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            try:
                self._send()
                self._failed = 0
            except Exception as error:  # noqa: BLE001 -- whatever the client libraries raise; the age tells
                if self._failed % QUIET_ROUNDS == 0 and not self._stopping.is_set():
                    log.warning("canary_not_sent", kind=type(error).__name__)
                self._failed += 1
                self._drop()
        self._drop()

    def _send(self) -> None:
        if self._transport is None:
            self._transport = open_transport(self._url)
            self._transport.connect()
        tag = self._transport.publish(names.USAGE_ROUTING_KEY, canary_body(time.time_ns() // 1000))
        # A broker that confirms nothing (an alarm) gets no second one behind the first.
        while not self._stopping.is_set():
            for settled in self._transport.settle(1.0):
                if settled.tag == tag:
                    if settled.error is not None:
                        raise RuntimeError(settled.error)
                    return

    def _drop(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.drop()
