"""The transactions that book just now, and how long each has run."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class RunningBooking(NamedTuple):
    """A transaction that has not ended: of which backend, and since when by the monotonic clock."""

    backend_pid: int
    began: float

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self.began


class RunningBookings:
    """At most one of each thread."""

    def __init__(self) -> None:
        self._by_thread: dict[int, RunningBooking] = {}

    @contextmanager
    def one(self, backend_pid: int) -> Iterator[RunningBooking]:
        """Count what runs inside as a booking of this thread."""
        running = self._by_thread[threading.get_ident()] = RunningBooking(backend_pid, time.monotonic())
        try:
            yield running
        finally:
            del self._by_thread[threading.get_ident()]

    def oldest(self) -> RunningBooking | None:
        """The one that has run longest, if any runs."""
        return min(list(self._by_thread.values()), key=lambda running: running.began, default=None)

    def seconds(self) -> float:
        """How long that one has run; 0 if none does."""
        oldest = self.oldest()
        return 0.0 if oldest is None else oldest.seconds
