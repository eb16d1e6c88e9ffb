"""The publishing half of a meter: a spool and its publisher, made again in a forked child."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from taximeter.brokers.opening import Broker
from taximeter.errors import ClosedError, FlushTimeoutError, InvalidEventError, SetAsideError
from taximeter.outage import logger
from taximeter.spool.lanes import BatchSettings, Stretch
from taximeter.spool.publisher import Publisher
from taximeter.spool.spool import Spool

SEGMENT_BYTES: Final = 8 * 1024 * 1024


class MeterStats(NamedTuple):
    """What a meter has done in this process, and what waits."""

    spooled_events: int
    """Events in the spool that the broker has not confirmed."""
    spooled_bytes: int
    oldest_unpublished_seconds: float | None
    """Age of the oldest of them, or None if nothing waits. For events adopted from a dead process: at least this."""
    recorded: int
    """Events accepted by this meter in this process."""
    published: int
    """Events handed to the broker, repetitions included."""
    confirmed: int
    """Events that the broker has confirmed, adopted ones included."""
    failures: int
    """Failed connections and messages that the broker did not take."""
    last_error: str | None
    """Why publishing does not get on at present, or None."""
    set_aside: int = 0
    """Events that the broker refuses for their size; they are in ``*.set-aside`` files of the spool."""


def check_size(line: bytes, bytes_max: int) -> None:
    """Raise `InvalidEventError` if an event is larger than is taken."""
    if len(line) > bytes_max:
        raise InvalidEventError("too_large", "event", f"has {len(line)} bytes as JSON, at most {bytes_max} are taken")


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSettings:
    """The settings of `taximeter.Meter` that concern publishing; explained there."""

    broker_url: str = field(repr=False)
    producer_key: str | None = field(repr=False)
    directory: Path
    spool_bytes_max: int
    fsync: bool
    event_bytes_max: int
    batch: BatchSettings
    shards: int


class Pipeline:
    """Takes events and gets them to the broker.

    Raises:
        ConfigurationError: The broker's address cannot be understood.
        SpoolError: The spool directory cannot be made.
    """

    def __init__(self, settings: PipelineSettings) -> None:
        self._broker = Broker(settings.broker_url, settings.producer_key)
        self._settings = settings
        self._event_bytes_max = settings.event_bytes_max
        self._lock = threading.RLock()
        self._closed = False
        self._running: tuple[Spool, Publisher] | None = None
        self._start()

    def put(self, routing_key: str, line: bytes) -> None:
        """Spool one event, a line of JSON.

        Raises:
            InvalidEventError: It is too large.
            SpoolError: The spool could not take it.
            ClosedError: The pipeline is closed.
        """
        if len(line) > self._event_bytes_max:  # a call for every event costs more than the comparison
            self.check_size(line)
        spool, publisher = self._running or self._start()
        spool.append(routing_key, line)
        publisher.wake()

    def put_all(self, events: Iterable[tuple[str, bytes]]) -> list[Stretch]:
        """Spool events, each a routing key and a line of JSON that `check_size` has passed.

        Returns:
            Where they are: what `on_progress` tells of is to be compared with. See `taximeter.spool.lanes.Stretch`.

        Raises:
            SpoolError: The spool could not take one of them; those before it were taken.
            ClosedError: The pipeline is closed.
        """
        spool, publisher = self._running or self._start()
        try:
            return spool.append_all(events)
        finally:
            publisher.wake()

    def check_size(self, line: bytes) -> None:
        """Raise InvalidEventError for an event that is too large."""
        check_size(line, self._event_bytes_max)

    def on_progress(self, call: Callable[[], None]) -> None:
        """Have something called whenever the broker has confirmed events. It runs in the publisher's thread and must not wait."""
        _, publisher = self._running or self._start()
        publisher.on_progress = call

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the events in the spool that the broker has not confirmed."""
        spool, _ = self._running or self._start()
        return spool.bytes_waiting

    def flush(self, timeout_seconds: float) -> None:
        """Wait until everything spooled before this call is confirmed.

        Raises:
            FlushTimeoutError: Time is over.
            SetAsideError: The broker has the rest, but refuses some events for their size. Raised once for each.
            ClosedError: The pipeline is closed.
        """
        if self._closed:
            raise ClosedError("the meter is closed; make a new one")
        spool, publisher = self._running or self._start()
        if not publisher.wait_until_confirmed(timeout_seconds):
            raise FlushTimeoutError(spool.events_waiting, timeout_seconds, publisher.last_error)
        files = publisher.take_set_aside_files()
        if files:
            raise SetAsideError(files)

    def stats(self) -> MeterStats:
        """Count what was spooled and published, and what waits."""
        if self._running is None:
            return MeterStats(0, 0, None, 0, 0, 0, 0, None)
        spool, publisher = self._running
        return MeterStats(
            spooled_events=spool.events_waiting,
            spooled_bytes=spool.bytes_waiting,
            oldest_unpublished_seconds=spool.oldest_seconds(),
            recorded=spool.recorded_events,
            published=publisher.published_events,
            confirmed=sum(lane.confirmed_events for lane in spool.lanes),
            failures=publisher.failures,
            last_error=publisher.last_error,
            set_aside=sum(lane.set_aside_events for lane in spool.lanes),
        )

    def close(self, timeout_seconds: float) -> None:
        """Publish what waits, as far as time allows; the rest stays in the spool for the next meter."""
        with self._lock:
            self._closed = True
            running = self._running
        if running is None:
            return
        spool, publisher = running
        if not publisher.wait_until_confirmed(timeout_seconds):
            logger.warning(
                "%d events stay in the spool %s; the next meter that uses it publishes them (%s)",
                spool.events_waiting,
                self._settings.directory,
                publisher.last_error or "the broker has not confirmed them in time",
            )
        publisher.stop()

    @property
    def is_running(self) -> bool:
        """Whether there is a thread and a spool to let go of."""
        return self._running is not None and not self._closed

    def release(self) -> None:
        """Let go of everything without waiting or taking a lock: what waits stays in the spool."""
        self._closed = True
        if self._running is not None:
            self._running[1].stop(wait=False)

    def after_fork_in_child(self) -> None:
        """Let go of the parent's segments, connection and thread; what is needed is made on the next use."""
        running, self._running = self._running, None
        self._lock = threading.RLock()
        if running is not None:
            running[1].abandon()

    def _start(self) -> tuple[Spool, Publisher]:
        with self._lock:
            if self._running is not None:
                return self._running
            if self._closed:
                raise ClosedError("the meter is closed; make a new one")
            settings = self._settings
            spool = Spool(
                settings.directory,
                bytes_max=settings.spool_bytes_max,
                segment_bytes=SEGMENT_BYTES,
                fsync=settings.fsync,
                shards=settings.shards,
            )
            publisher = Publisher(spool, self._broker.open, settings.batch)
            publisher.start()
            self._running = (spool, publisher)
            return self._running
