"""The publishing half of a meter: a spool and its publisher, begun anew in a forked child."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from taximeter.errors import ClosedError, FlushTimeoutError, InvalidEventError
from taximeter.publisher import Publisher, logger
from taximeter.spool import Spool
from taximeter.transports import open_transport

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


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxSettings:
    """The settings of `taximeter.Meter` that concern publishing; explained there."""

    broker_url: str = field(repr=False)
    producer_key: str | None = field(repr=False)
    directory: Path
    spool_bytes_max: int
    fsync: bool
    event_bytes_max: int
    batch_events_max: int
    batch_bytes_max: int
    linger_seconds: float
    shards: int


class Outbox:
    """Takes events and gets them to the broker.

    Raises:
        ConfigurationError: The broker's address cannot be understood.
        SpoolError: The spool directory cannot be made.
    """

    def __init__(self, settings: OutboxSettings) -> None:
        open_transport(
            settings.broker_url, settings.producer_key
        )  # an address that cannot be understood shows here, not in the background
        self._settings = settings
        self._lock = threading.RLock()
        self._closed = False
        self._recorded = 0
        self._running: tuple[Spool, Publisher] | None = None
        self._start()

    def put(self, routing_key: str, line: bytes) -> None:
        """Spool one event, a line of JSON.

        Raises:
            InvalidEventError: It is too large.
            SpoolError: The spool could not take it.
            ClosedError: The outbox is closed.
        """
        if len(line) > self._settings.event_bytes_max:
            raise InvalidEventError(
                "too_large",
                "event",
                f"has {len(line)} bytes as JSON, at most {self._settings.event_bytes_max} are taken",
            )
        spool, publisher = self._running or self._start()
        spool.append(routing_key, line)
        self._recorded += 1
        publisher.wake()

    def flush(self, timeout_seconds: float) -> None:
        """Wait until everything spooled before this call is confirmed.

        Raises:
            FlushTimeoutError: Time is over.
            ClosedError: The outbox is closed.
        """
        if self._closed:
            raise ClosedError("the meter is closed; make a new one")
        spool, publisher = self._running or self._start()
        if not publisher.wait_until_confirmed(timeout_seconds):
            raise FlushTimeoutError(spool.events_waiting, timeout_seconds, publisher.last_error)

    def stats(self) -> MeterStats:
        """Count what was spooled and published, and what waits."""
        if self._running is None:
            return MeterStats(0, 0, None, self._recorded, 0, 0, 0, None)
        spool, publisher = self._running
        return MeterStats(
            spooled_events=spool.events_waiting,
            spooled_bytes=spool.bytes_waiting,
            oldest_unpublished_seconds=spool.oldest_seconds(),
            recorded=self._recorded,
            published=publisher.published_events,
            confirmed=sum(lane.confirmed_events for lane in spool.lanes),
            failures=publisher.failures,
            last_error=publisher.last_error,
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

    def after_fork_in_child(self) -> None:
        """Let go of the parent's segments, connection and thread; what is needed is made on the next use."""
        running, self._running = self._running, None
        self._lock = threading.RLock()
        self._recorded = 0
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
            publisher = Publisher(
                spool,
                lambda: open_transport(settings.broker_url, settings.producer_key),
                batch_events_max=settings.batch_events_max,
                batch_bytes_max=settings.batch_bytes_max,
                linger_seconds=settings.linger_seconds,
            )
            publisher.start()
            self._running = (spool, publisher)
            return self._running
