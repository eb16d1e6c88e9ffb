"""The background thread that carries the spool to the broker.

It packs whole lines into batch messages, keeps a window of them unconfirmed, and moves a segment's confirmed position
only in order. After any failure it goes back to that position: the broker may get an event twice (the ledger drops
the second), but never not at all.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from taximeter.segment import Cut, Segment
from taximeter.spool import Lane, Spool
from taximeter.transports import Transport

logger = logging.getLogger("taximeter")

WINDOW_MESSAGES: Final = 6
CONFIRM_TIMEOUT_SECONDS: Final = 30.0
ADOPT_EVERY_SECONDS: Final = 5.0
IDLE_TICK_SECONDS: Final = 1.0
BACK_OFF_FIRST_SECONDS: Final = 0.1
BACK_OFF_MAX_SECONDS: Final = 10.0
STOP_TIMEOUT_SECONDS: Final = 1.0
_DOUBLINGS_MAX: Final = 10


class _StalledError(Exception):
    """The broker has confirmed nothing for too long."""


@dataclass(eq=False, slots=True)
class _Sent:
    """A message on its way."""

    queue: _Queue
    segment: Segment
    cut: Cut
    sent_at: float
    confirmed: bool = False
    void: bool = False
    """The lane went back behind this message; its verdict no longer matters."""


@dataclass(eq=False, slots=True)
class _Queue:
    """A lane and what of it is on its way, in order."""

    lane: Lane
    on_their_way: deque[_Sent] = field(default_factory=deque)
    events_on_their_way: int = 0
    failures_in_a_row: int = 0
    retry_at: float = 0.0
    sent_at: float = 0.0

    @property
    def unsent_events(self) -> int:
        return self.lane.waiting_events - self.events_on_their_way

    def rewind(self) -> None:
        for sent in self.on_their_way:
            sent.void = True
        self.on_their_way.clear()
        self.events_on_their_way = 0
        for segment in tuple(self.lane.segments):
            segment.rewind()


class Publisher:
    """Publishes one spool over one connection.

    Args:
        spool: What to publish. The publisher closes it when it stops.
        open_transport: Makes a new, unconnected transport.
        batch_events_max: Most events in a message.
        batch_bytes_max: Most bytes in a message, unless a single event is larger.
        linger_seconds: How long to wait for company before an event is sent.
    """

    def __init__(
        self,
        spool: Spool,
        open_transport: Callable[[], Transport],
        *,
        batch_events_max: int,
        batch_bytes_max: int,
        linger_seconds: float,
    ) -> None:
        self._spool = spool
        self._open_transport = open_transport
        self._batch_events_max = batch_events_max
        self._batch_bytes_max = batch_bytes_max
        self._linger_seconds = linger_seconds
        self._queues = [_Queue(lane) for lane in spool.lanes]
        self._in_flight: dict[int, _Sent] = {}
        self._transport: Transport | None = None
        self._failures_in_a_row = 0
        self._adopt_at = 0.0
        self._adopted_once = False
        self._stopping = False
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._progress = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="taximeter-publisher", daemon=True)
        self.published_events = 0
        """Events handed to the broker, repetitions included."""
        self.failures = 0
        """Failed connections and messages that the broker did not take."""
        self.last_error: str | None = None
        """The failure that publishing is recovering from, or None."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Say that there is something new in the spool."""
        if not self._wake.is_set():
            self._wake.set()

    def wait_until_confirmed(self, timeout_seconds: float) -> bool:
        """Wait until the broker has everything that is in the spool now. False when the time is over first."""
        targets = [(lane, lane.accepted_events) for lane in self._spool.lanes]
        deadline = time.monotonic() + timeout_seconds
        self._hurry.set()
        self._wake.set()
        with self._progress:
            while not self._adopted_once or any(lane.confirmed_events < target for lane, target in targets):
                left = deadline - time.monotonic()
                if left <= 0 or not self._thread.is_alive():
                    return False
                was_adopted = self._adopted_once
                self._progress.wait(min(left, IDLE_TICK_SECONDS))
                if self._adopted_once and not was_adopted:
                    targets = [(lane, max(target, lane.accepted_events)) for lane, target in targets]
        return True

    def stop(self) -> None:
        """Stop the thread, wherever it waits, and close the spool. What is unconfirmed stays on disk."""
        self._stopping = True
        self._hurry.set()
        self._wake.set()
        transport = self._transport
        if transport is not None:
            transport.interrupt()
        if self._thread is not threading.current_thread():
            self._thread.join(STOP_TIMEOUT_SECONDS)

    def abandon(self) -> None:
        """In a forked child, where the thread does not exist: let go of what was inherited."""
        if self._transport is not None:
            self._transport.abandon()
        self._spool.close(forked=True)

    def _run(self) -> None:
        try:
            while not self._stopping:
                try:
                    self._step()
                except Exception as error:  # noqa: BLE001 - whatever the client library raises, the thread lives on
                    if not self._stopping:
                        self._start_over(error)
        finally:
            self._drop_transport()
            self._spool.close()
            with self._progress:
                self._progress.notify_all()

    def _step(self) -> None:
        now = time.monotonic()
        if now >= self._adopt_at:
            self._adopt(now)
        sending = self._fill_window()
        if self._in_flight:
            # With room in the window, look soon whether more is to be sent; with none, only a verdict helps.
            full = len(self._in_flight) >= WINDOW_MESSAGES
            self._settle(IDLE_TICK_SECONDS if full else self._linger_seconds)
        elif not sending:
            self._idle()

    def _adopt(self, now: float) -> None:
        self._adopt_at = now + ADOPT_EVERY_SECONDS
        # The directory may be gone or unreadable; what is open can still be published.
        with contextlib.suppress(OSError):
            adopted = self._spool.adopt()
            if adopted:
                logger.info("publishing what %d earlier processes left in the spool", adopted)
        if not self._adopted_once:
            with self._progress:
                self._adopted_once = True
                self._progress.notify_all()

    def _idle(self) -> None:
        try:
            self._settle(0)  # heartbeats, and notice of a lost connection
        except Exception as error:  # noqa: BLE001 - nothing is on its way: the next event connects anew
            if not self._stopping:
                logger.info("the connection to the broker was lost while idle: %s", error)
            self._drop_transport()
        now = time.monotonic()
        due = [max(queue.retry_at - now, self._linger_seconds) for queue in self._queues if queue.unsent_events]
        woken = self._wake.wait(min([IDLE_TICK_SECONDS, *due]))
        self._wake.clear()
        if woken and self._hurry.wait(self._linger_seconds):
            self._hurry.clear()
            for queue in self._queues:
                queue.retry_at = 0.0

    def _fill_window(self) -> bool:
        sending = False
        while len(self._in_flight) < WINDOW_MESSAGES and not self._stopping:
            found = self._next_cut()
            if found is None:
                break
            queue, segment, cut = found
            transport = self._connected()
            sent = _Sent(queue, segment, cut, time.monotonic())
            queue.on_their_way.append(sent)
            queue.events_on_their_way += cut.events
            queue.sent_at = sent.sent_at
            tag = transport.publish(queue.lane.routing_key, cut.body)
            self._in_flight[tag] = sent
            self.published_events += cut.events
            sending = True
        return sending

    def _next_cut(self) -> tuple[_Queue, Segment, Cut] | None:
        now = time.monotonic()
        for position, queue in enumerate(self._queues):
            if queue.retry_at > now:
                continue
            if queue.unsent_events < self._batch_events_max and now - queue.sent_at < self._linger_seconds:
                continue  # more company is likely: messages cost more than events
            for segment in tuple(queue.lane.segments):
                cut = segment.cut(self._batch_events_max, self._batch_bytes_max)
                if cut is not None:
                    # The others come first next time.
                    self._queues.append(self._queues.pop(position))
                    return queue, segment, cut
        return None

    def _connected(self) -> Transport:
        if self._transport is None:
            self._transport = self._open_transport()
            self._transport.connect()
        return self._transport

    def _settle(self, timeout_seconds: float) -> None:
        if self._transport is None:
            return
        progressed = False
        for tag, error in self._transport.settle(timeout_seconds):
            sent = self._in_flight.pop(tag)
            if sent.void:
                continue
            if error is None:
                sent.confirmed = True
                progressed |= self._advance(sent.queue)
            else:
                self._set_back(sent.queue, error)
        if progressed:
            self._recovered()
            with self._progress:
                self._progress.notify_all()
        elif self._in_flight:
            oldest = next(iter(self._in_flight.values()))
            if time.monotonic() - oldest.sent_at > CONFIRM_TIMEOUT_SECONDS:
                raise _StalledError(f"the broker has confirmed nothing for {CONFIRM_TIMEOUT_SECONDS:g} s")

    def _advance(self, queue: _Queue) -> bool:
        progressed = False
        while queue.on_their_way and queue.on_their_way[0].confirmed:
            sent = queue.on_their_way.popleft()
            sent.segment.confirm(sent.cut.end)
            queue.lane.confirmed_events += sent.cut.events
            queue.events_on_their_way -= sent.cut.events
            progressed = True
        if progressed:
            queue.failures_in_a_row = 0
            self._spool.retire(queue.lane)
        return progressed

    def _recovered(self) -> None:
        self._failures_in_a_row = 0
        if self.last_error is not None and not any(queue.failures_in_a_row for queue in self._queues):
            logger.info("publishing again")
            self.last_error = None

    def _set_back(self, queue: _Queue, error: str) -> None:
        """One routing key's message was not taken: only its lane goes back and waits."""
        queue.rewind()
        queue.retry_at = time.monotonic() + _back_off_seconds(queue.failures_in_a_row)
        queue.failures_in_a_row += 1
        self._note(error)

    def _start_over(self, error: Exception) -> None:
        """The connection failed: everything goes back and waits."""
        self._drop_transport()
        self._in_flight.clear()
        for queue in self._queues:
            queue.rewind()
        self._note(f"{type(error).__name__}: {error}")
        delay = _back_off_seconds(self._failures_in_a_row)
        self._failures_in_a_row += 1
        # A flush may cut the wait short, but not below the first step.
        time.sleep(min(delay, BACK_OFF_FIRST_SECONDS))
        if self._hurry.wait(max(0.0, delay - BACK_OFF_FIRST_SECONDS)) and not self._stopping:
            self._hurry.clear()

    def _note(self, error: str) -> None:
        self.failures += 1
        if self.last_error is None:
            logger.warning("cannot publish: %s. Events wait in the spool %s", error, self._spool.directory)
        self.last_error = error

    def _drop_transport(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.drop()


def _back_off_seconds(failures: int) -> float:
    """Doubling from the first step to the limit, with jitter, so that many producers do not come back at once."""
    ceiling: float = min(BACK_OFF_MAX_SECONDS, BACK_OFF_FIRST_SECONDS * (1 << min(failures, _DOUBLINGS_MAX)))
    return ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
