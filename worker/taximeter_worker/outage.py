"""A log line for each change of state: something fails, it still fails, it works again."""

from __future__ import annotations

import threading
import time
from typing import Any

import structlog

log = structlog.get_logger(__name__)

REMIND_SECONDS = 300.0


class Outage:
    """What fails again and again is logged when it begins, every five minutes while it lasts, and when it is over.

    Args:
        failing: The event that is logged at the beginning and as a reminder.
        over: The event that is logged at the end, with how long it lasted and how often it failed.
    """

    def __init__(self, failing: str, over: str) -> None:
        self._failing = failing
        self._over = over
        self._lock = threading.Lock()
        self._count = 0
        self._began = self._logged = 0.0

    @property
    def lasts(self) -> bool:
        """Whether it failed last."""
        return self._count > 0

    def failed(self, *, count: int = 1, **fields: Any) -> None:
        """Note a failure; ``fields`` say why, ``count`` how many things failed at once."""
        now = time.monotonic()
        with self._lock:
            first = not self._count
            self._count += count
            if first:
                self._began = now
            elif now - self._logged < REMIND_SECONDS:
                return
            self._logged, times, seconds = now, self._count, now - self._began
        if not first:
            fields |= {"times": times, "seconds": round(seconds)}
        log.warning(self._failing, **fields)

    def ended(self, **fields: Any) -> None:
        """Note that it works."""
        if not self._count:
            return
        with self._lock:
            times, seconds, self._count = self._count, time.monotonic() - self._began, 0
        if times:
            log.info(self._over, times=times, seconds=round(seconds, 1), **fields)
