"""Says once that something has begun to fail, and once that it works again."""

from __future__ import annotations

import logging
import time

logger = logging.getLogger("taximeter")
"""The SDK's only logger. It never writes an event's content, nor any of an address."""


class Outage:
    """The log lines of one thing that can fail: one for each change of state, however often it is tried meanwhile.

    Args:
        what_fails: Begins the warning, for example ``"flags cannot be read"``.
        what_works: Begins the line that ends it, for example ``"flags can be read again"``.
    """

    def __init__(self, what_fails: str, what_works: str) -> None:
        self._what_fails = what_fails
        self._what_works = what_works
        self._since: float | None = None
        self._failures = 0
        self.reason: str | None = None
        """The newest failure, or None while everything works."""

    def failed(self, reason: str) -> None:
        """Note a failure; the first one is logged."""
        self._failures += 1
        self.reason = reason
        if self._since is None:
            self._since = time.monotonic()
            logger.warning("%s: %s", self._what_fails, reason)

    def ended(self) -> None:
        """Note that it works. Costs nothing where nothing had failed."""
        if self._since is None:
            return
        seconds = time.monotonic() - self._since
        logger.info("%s, after %.1f s and %d failures", self._what_works, seconds, self._failures)
        self._since, self._failures, self.reason = None, 0, None
