"""UUIDv7 event ids (RFC 9562, section 5.7), in order within a process.

Time-ordered ids keep the ledger's key index warm: booking random ids at 20 million keys costs twice as much.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable

_COUNTER_BITS = 12
_COUNTER_SEED_BITS = 11  # the top bit stays free, so that a millisecond has room for 2,048 ids before time is borrowed
_RANDOM_BITS = 62
_VARIANT = 0x8000
_VERSION_DIGIT = "7"
_NANOSECONDS_PER_MILLISECOND = 1_000_000
_COUNTERS = [f"{counter:03x}" for counter in range(1 << _COUNTER_BITS)]


_Millisecond = tuple[int, str, str, Callable[[], int]]
"""What the ids of one millisecond share: it, what stands before and after the counter, and the counter's next number.

Never changed, but for the counter, whose step is atomic. A plain tuple: a named one takes twice as long to unpack.
"""


class _Generator:
    """Milliseconds, a counter that begins somewhere at random, and randomness drawn once a millisecond.

    That is method 2 of section 6.2, with steps of 2^62: what was drawn is counted on within its millisecond.
    """

    def __init__(self) -> None:
        # Reentrant, so that a signal handler which records does not lock up its own thread. It may come between any two
        # steps below, and must never get the id that its thread is about to return.
        self._lock = threading.RLock()
        self._now: _Millisecond = (0, "", "", itertools.count().__next__)

    def _begin(self, milliseconds: int) -> _Millisecond:
        drawn = int.from_bytes(os.urandom(10), "big")
        low = drawn & ((1 << _RANDOM_BITS) - 1)
        self._now = millisecond = (
            milliseconds,
            f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}-{_VERSION_DIGIT}",
            f"-{_VARIANT | low >> 48:04x}-{low & 0xFFFFFFFFFFFF:012x}",
            itertools.count(drawn >> _RANDOM_BITS & ((1 << _COUNTER_SEED_BITS) - 1)).__next__,
        )
        return millisecond

    def next(self) -> str:
        with self._lock:
            clock = time.time_ns() // _NANOSECONDS_PER_MILLISECOND
            milliseconds, before, after, step = self._now
            # The same millisecond, or a clock that was set back: count on from the last id.
            if clock > milliseconds:
                milliseconds, before, after, step = self._begin(clock)
            number = step()
            if number >> _COUNTER_BITS:
                milliseconds, before, after, step = self._begin(milliseconds + 1)
                number = step()
            return f"{before}{_COUNTERS[number]}{after}"


_generator = _Generator()


def _after_fork_in_child() -> None:
    # A forked child would count on where its parent does, and may have copied a held lock.
    global _generator  # noqa: PLW0603 - one generator a process is what makes the ids ordered
    _generator = _Generator()


os.register_at_fork(after_in_child=_after_fork_in_child)


def new_event_id() -> str:
    """Return a new UUIDv7 as text. Safe from threads and after ``fork``."""
    return _generator.next()
