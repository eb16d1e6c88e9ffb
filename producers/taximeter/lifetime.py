"""What happens to the living meters when the process forks or ends."""

from __future__ import annotations

import atexit
import os
import weakref
from typing import Protocol


class Living(Protocol):
    """A meter, as far as it matters here."""

    def after_fork_in_child(self) -> None:
        """Drop what stays the parent's."""

    def close(self) -> None:
        """Publish what waits, and let go of everything."""


_living: weakref.WeakSet[Living] = weakref.WeakSet()


def watch(meter: Living) -> None:
    """Tell a meter of forks and of the interpreter's end, for as long as somebody else holds it."""
    _living.add(meter)


def _after_fork_in_child() -> None:
    for meter in tuple(_living):
        meter.after_fork_in_child()


def _close_all() -> None:
    for meter in tuple(_living):
        meter.close()


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_close_all)
