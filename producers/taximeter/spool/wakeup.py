"""An event that may be set from anywhere: in a signal handler, and while objects are being collected.

`threading.Event` holds a plain lock while it is set or waited for. A signal handler that interrupts its own thread there,
and sets the same event, waits for itself without end.
"""

from __future__ import annotations

import contextlib
from queue import Empty, SimpleQueue


class Wakeup:
    """Set by any thread, waited for and cleared by one."""

    def __init__(self) -> None:
        self._set = False
        self._tokens: SimpleQueue[None] = SimpleQueue()  # its put() is reentrant, which no lock of Python's is

    def set(self) -> None:
        """Wake the thread that waits, or the next that does."""
        if not self._set:
            self._set = True
            self._tokens.put(None)

    def wait(self, timeout_seconds: float) -> bool:
        """Wait until it is set, at most this long; say whether it is."""
        if not self._set:
            with contextlib.suppress(Empty):
                self._tokens.get(timeout=max(0.0, timeout_seconds))
        return self._set

    def clear(self) -> None:
        """Forget that it was set. Whoever clears it looks for work afterwards, so that none is overlooked."""
        self._set = False
        with contextlib.suppress(Empty):
            while True:
                self._tokens.get_nowait()
