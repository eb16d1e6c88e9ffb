"""The background thread that carries the spool to the broker.

It packs whole lines into batch messages, keeps a window of them unconfirmed, and moves a segment's confirmed position
only in order. After any failure it goes back to that position: the broker may get an event twice (the ledger drops
the second), but never not at all.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from taximeter.backoff import BackOff
from taximeter.brokers.transport import MessageTooLargeError, Transport
from taximeter.outage import Outage, logger
from taximeter.spool.lanes import BACK_OFF_FIRST_SECONDS, BACK_OFF_MAX_SECONDS, BatchSettings, LaneProgress, Message
from taximeter.spool.segment import Cut, Segment
from taximeter.spool.spool import Spool
from taximeter.spool.wakeup import Wakeup

WINDOW_MESSAGES: Final = 6
CONFIRM_TIMEOUT_SECONDS: Final = 30.0
ADOPT_EVERY_SECONDS: Final = 5.0
IDLE_TICK_SECONDS: Final = 1.0
STOP_TIMEOUT_SECONDS: Final = 1.0


class _StalledError(Exception):
    """The broker has confirmed nothing for too long."""


class Publisher:
    """Publishes one spool over one connection.

    Args:
        spool: What to publish. The publisher closes it when it stops.
        open_transport: Makes a new, unconnected transport.
        batch: How events are packed.
    """

    def __init__(self, spool: Spool, open_transport: Callable[[], Transport], batch: BatchSettings) -> None:
        self._spool = spool
        self._open_transport = open_transport
        self._batch = batch
        self._bytes_max = batch.bytes_max
        # The broker refuses a message of this size; None: nothing was refused since the last outage.
        self._refused_bytes: int | None = None
        self._lanes = [LaneProgress(lane) for lane in spool.lanes]
        self._in_flight: dict[int, Message] = {}
        self._publishing: Message | None = None
        self._transport: Transport | None = None
        self._refusing = False  # the transport has refused a message, which is not to go over it again
        self._back_off = BackOff(BACK_OFF_FIRST_SECONDS, BACK_OFF_MAX_SECONDS)
        self._adopt_at = 0.0
        self._adopted_segments = 0
        self._adoption_complete = False
        self._stopping = False
        self._wake = Wakeup()
        self.wake: Callable[[], None] = self._wake.set
        """Say that there is something new in the spool. Safe in a signal handler."""
        self._hurry = Wakeup()
        self._progress = threading.Condition()
        self._outage = Outage(f"cannot publish, events wait in the spool {spool.directory}", "publishing again")
        self._thread = threading.Thread(target=self._run, name="taximeter-publisher", daemon=True)
        self.published_events = 0
        """Events handed to the broker, repetitions included."""
        self.failures = 0
        """Failed connections and messages that the broker did not take."""
        self.set_aside_files: dict[Path, str] = {}
        """Where the events are that the broker refuses for their size, and what it said."""
        self.on_progress: Callable[[], None] = lambda: None
        """Called in the publisher's thread whenever events were settled. Must not wait."""

    def take_set_aside_files(self) -> dict[Path, str]:
        """The files since the last call, and what the broker said."""
        with self._progress:
            files, self.set_aside_files = self.set_aside_files, {}
        return files

    @property
    def last_error(self) -> str | None:
        """The failure that publishing is recovering from, or None."""
        return self._outage.reason

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wait_until_confirmed(self, timeout_seconds: float) -> bool:
        """Wait until the broker has everything that is in the spool now, but for what was set aside.

        Returns:
            False when the time is over first.
        """
        targets = [(lane, lane.accepted_events) for lane in self._spool.lanes]
        deadline = time.monotonic() + timeout_seconds
        self._hurry.set()
        self._wake.set()
        with self._progress:
            adopting = not self._adoption_complete
            while adopting or any(lane.settled_events < target for lane, target in targets):
                left = deadline - time.monotonic()
                if left <= 0 or not self._thread.is_alive():
                    return False
                self._progress.wait(min(left, IDLE_TICK_SECONDS))
                if adopting and self._adoption_complete:
                    adopting = False
                    targets = [(lane, max(target, lane.accepted_events)) for lane, target in targets]
        return True

    def stop(self, *, wait: bool = True) -> None:
        """Stop the thread, wherever it waits, and close the spool. What is unconfirmed stays on disk.

        Without ``wait`` this takes no lock, so that it can be called while objects are being collected.
        """
        self._stopping = True
        self._hurry.set()
        self._wake.set()
        transport = self._transport
        if transport is not None:
            transport.interrupt()
        if wait and self._thread is not threading.current_thread():
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
                except MessageTooLargeError as error:
                    self._learn_size(error)
                except Exception as error:  # noqa: BLE001 - whatever the client library raises, the thread lives on
                    if not self._stopping:
                        self._start_over(error)
        finally:
            self._drop_transport()
            self._spool.close()
            with self._progress:
                self._progress.notify_all()

    def _step(self) -> None:
        self._adopt()
        sending = self._fill_window()
        if self._in_flight:
            # With room in the window, look soon whether more is to be sent; with none, only a verdict helps.
            full = len(self._in_flight) >= WINDOW_MESSAGES
            self._settle(IDLE_TICK_SECONDS if full else self._batch.linger_seconds)
        elif not sending:
            self._idle()

    def _adopt(self) -> None:
        now = time.monotonic()
        # A look through a large directory costs something, so not for every segment that is done.
        made_room = not self._adoption_complete and self._spool.adopted_segments <= self._adopted_segments // 2
        if now < self._adopt_at and not made_room:
            return
        self._adopt_at = now + ADOPT_EVERY_SECONDS
        complete = True
        # The directory may be gone or unreadable; what is open can still be published.
        with contextlib.suppress(OSError):
            adoption = self._spool.adopt()
            complete = adoption.complete
            if adoption.segments:
                logger.info("publishing %d segments that earlier processes left in the spool", adoption.segments)
        self._adopted_segments = self._spool.adopted_segments
        if complete != self._adoption_complete:
            with self._progress:
                self._adoption_complete = complete
                self._progress.notify_all()

    def _idle(self) -> None:
        try:
            self._settle(0)  # heartbeats, and notice of a lost connection
        except Exception as error:  # noqa: BLE001 - nothing is in flight: the next event connects again
            if not self._stopping:
                logger.info("the connection to the broker was lost while idle: %s", error)
            self._drop_transport()
        now = time.monotonic()
        linger = self._batch.linger_seconds
        due = [max(progress.retry_at - now, linger) for progress in self._lanes if progress.unsent_events]
        woken = self._wake.wait(min([IDLE_TICK_SECONDS, *due]))
        self._wake.clear()
        if woken and self._hurry.wait(linger):
            self._hurry.clear()
            for progress in self._lanes:
                progress.retry_at = 0.0

    def _fill_window(self) -> bool:
        if self._refusing and any(progress.retry_due for progress in self._lanes):
            if self._in_flight:
                return False  # what other lanes have sent is settled first
            self._drop_transport()
        sending = False
        while len(self._in_flight) < WINDOW_MESSAGES and not self._stopping:
            message = self._next_message()
            if message is None:
                break
            transport = self._connected()
            message.progress.send(message)
            self._publishing = message
            tag = transport.publish(message.progress.lane.routing_key, message.cut.body)
            self._publishing = None
            self._in_flight[tag] = message
            self.published_events += message.cut.events
            sending = True
        return sending

    def _next_message(self) -> Message | None:
        now = time.monotonic()
        for position, progress in enumerate(self._lanes):
            if progress.retry_at > now:
                continue
            if progress.unsent_events < self._batch.events_max and now - progress.sent_at < self._batch.linger_seconds:
                continue  # more company is likely: messages cost more than events
            next_cut = self._next_cut(progress)
            if next_cut is not None:
                # The others come first next time.
                self._lanes.append(self._lanes.pop(position))
                return Message(progress, *next_cut, now)
        return None

    def _next_cut(self, progress: LaneProgress) -> tuple[Segment, Cut] | None:
        for segment in tuple(progress.lane.segments):
            while (cut := segment.cut(self._batch.events_max, self._bytes_max)) is not None:
                if not self._is_refused(cut):
                    return segment, cut
                if not self._set_aside(progress, segment, cut):
                    return None
        return None

    def _is_refused(self, cut: Cut) -> bool:
        return self._refused_bytes is not None and cut.events == 1 and len(cut.body) >= self._refused_bytes

    def _set_aside(self, progress: LaneProgress, segment: Segment, cut: Cut) -> bool:
        """Put an event that is too large for the broker beside the segment. False: what is before it comes first."""
        if progress.in_flight:
            segment.sent = cut.start
            return False
        path = segment.set_aside(cut)
        segment.confirm(cut.end)
        reason = f"the broker refuses messages of {self._refused_bytes} bytes"
        logger.error("an event of %d bytes is set aside in %s: %s", len(cut.body), path, reason)
        with self._progress:
            progress.lane.set_aside_positions.append(progress.lane.settled_events + 1)
            progress.lane.set_aside_events += cut.events
            self.set_aside_files[path] = reason
            self._spool.retire(progress.lane)
            self._progress.notify_all()
        self.on_progress()
        return True

    def _learn_size(self, error: MessageTooLargeError) -> None:
        """A message was refused for its size: pack smaller ones, and know which events can never go."""
        refused, before = self._publishing, (self._bytes_max, self._refused_bytes)
        if error.bytes_max is not None:
            self._refused_bytes = error.bytes_max + 1
            self._bytes_max = min(self._bytes_max, error.bytes_max - 2)  # the brackets around the lines
        elif refused is not None and refused.cut.events == 1:
            self._refused_bytes = len(refused.cut.body)
        else:
            self._bytes_max = max(self._bytes_max // 2, 1)
        if before == (self._bytes_max, self._refused_bytes):
            self._start_over(error)
        else:
            self.failures += 1
            self._reset()

    def _connected(self) -> Transport:
        if self._transport is None:
            self._transport = self._open_transport()
            self._transport.connect()
        return self._transport

    def _settle(self, timeout_seconds: float) -> None:
        if self._transport is None:
            return
        progressed = False
        for settled in self._transport.settle(timeout_seconds):
            message = self._in_flight.pop(settled.tag)
            if message.void:
                continue
            if settled.error is None:
                message.confirmed = True
                progressed |= self._advance(message.progress)
            else:
                self._refusing |= settled.refused
                self._set_back(message.progress, settled.error)
        if progressed:
            self._back_off.reset()
            if not any(progress.back_off.failures for progress in self._lanes):
                self._outage.ended()
            with self._progress:
                self._progress.notify_all()
            self.on_progress()
        elif self._in_flight:
            oldest = next(iter(self._in_flight.values()))
            if time.monotonic() - oldest.sent_at > CONFIRM_TIMEOUT_SECONDS:
                raise _StalledError(f"the broker has confirmed nothing for {CONFIRM_TIMEOUT_SECONDS:g} s")

    def _advance(self, progress: LaneProgress) -> bool:
        if not progress.advance():
            return False
        progress.back_off.reset()
        self._spool.retire(progress.lane)
        return True

    def _set_back(self, progress: LaneProgress, error: str) -> None:
        """One routing key's message was not taken: only its lane goes back and waits."""
        progress.rewind()
        progress.retry_at = time.monotonic() + progress.back_off.next_delay()
        self.failures += 1
        self._outage.failed(error)

    def _start_over(self, error: Exception) -> None:
        """The connection failed: everything goes back and waits."""
        self._reset()
        # Perhaps the broker was started again with other limits.
        self._refused_bytes, self._bytes_max = None, self._batch.bytes_max
        self.failures += 1
        self._outage.failed(f"{type(error).__name__}: {error}")
        delay = self._back_off.next_delay()
        # A flush may cut the wait short, but not below the first step.
        time.sleep(min(delay, BACK_OFF_FIRST_SECONDS))
        if self._hurry.wait(max(0.0, delay - BACK_OFF_FIRST_SECONDS)) and not self._stopping:
            self._hurry.clear()

    def _reset(self) -> None:
        self._drop_transport()
        self._publishing = None
        self._in_flight.clear()
        for progress in self._lanes:
            progress.rewind()

    def _drop_transport(self) -> None:
        transport, self._transport = self._transport, None
        self._refusing = False
        if transport is not None:
            transport.drop()
