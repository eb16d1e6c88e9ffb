"""A thread that does not end unless it is told to: what escapes its work starts the work again, and at last ends the process.

A worker in which one thread has died looks alive and does nothing: it holds what it has received, and no other may take it over.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable

import structlog

from taximeter_db.backoff import Backoff
from taximeter_worker.logs import where

log = structlog.get_logger(__name__)

FAILURES_MAX = 10
"""Failures in a row after which the process ends, so that another may take over."""
STEADY_SECONDS = 60.0
"""Failures that are further apart do not count as a row."""
_BACKOFF = Backoff(0.1, 5.0)


def end_process() -> None:
    """Stop this worker as its supervisor would."""
    os.kill(os.getpid(), signal.SIGTERM)


class GuardedThread:
    """Runs ``work`` until it returns.

    Args:
        name: Of the thread, for log and metric.
        work: Raises nothing, as far as anybody foresaw.
        stopping: Once it is set, work that fails is not started again.
        failed: Called with the name after each failure, to count it.
        give_up: Called when the work failed again and again.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], None],
        stopping: threading.Event,
        failed: Callable[[str], None],
        give_up: Callable[[], None] = end_process,
    ) -> None:
        self._name = name
        self._work = work
        self._stopping = stopping
        self._failed = failed
        self._give_up = give_up
        self._failures, self._failed_at = 0, -STEADY_SECONDS
        self._thread = threading.Thread(target=self._run, name=f"taximeter-{name}", daemon=True)

    def start(self) -> None:
        """Start the thread and return."""
        self._thread.start()

    def join(self, timeout_seconds: float) -> None:
        """Wait until the work has ended, or the time is over. One that was never started has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while True:
            try:
                self._work()
            except BaseException as error:  # noqa: BLE001 -- the outermost frame of a thread
                self._note(error)
            else:
                return
            if self._stopping.wait(_BACKOFF.seconds(self._failures)):
                return

    def _note(self, error: BaseException) -> None:
        now = time.monotonic()
        self._failures = self._failures + 1 if now - self._failed_at < STEADY_SECONDS else 1
        self._failed_at = now
        # Each by itself: where memory is short, any of them may fail too.
        with contextlib.suppress(BaseException):
            self._failed(self._name)
        with contextlib.suppress(BaseException):
            log.critical("thread_failed", thread=self._name, kind=type(error).__name__, where=where(error))
        if self._failures == FAILURES_MAX:
            with contextlib.suppress(BaseException):
                log.critical("worker_gives_up", thread=self._name, failures=self._failures)
            self._give_up()
