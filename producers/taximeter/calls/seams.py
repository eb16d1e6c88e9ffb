"""Seams that contain each other: a framework's callback, the client that it calls, an attempt of that client.

Whoever meters a call opens a seam around it. What runs inside is the same call, seen once more, and is neither checked
nor recorded again.
"""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType

_open: ContextVar[bool] = ContextVar("taximeter_seam", default=False)


def is_inside() -> bool:
    """Whether the code that runs now is part of a call that is metered already."""
    return _open.get()


class Seam:
    """``with Seam():`` around what makes the call."""

    __slots__ = ("_outer",)

    def __enter__(self) -> None:
        self._outer = _open.get()
        _open.set(True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _open.set(self._outer)


_watch: ContextVar[Watch | None] = ContextVar("taximeter_watch", default=None)


class Watch:
    """Notes whether a wrapped client meters a call while it is open, in this context and in those copied from it.

    For callbacks, which may end in another context than that of their beginning, or never: a watch that stays open
    changes nothing for those who come after.
    """

    __slots__ = ("has_metered", "is_open", "outer")

    def __init__(self) -> None:
        self.has_metered = False
        self.is_open = True
        self.outer = _watch.get()
        _watch.set(self)

    def close(self) -> None:
        """End, in all contexts."""
        self.is_open = False
        if _watch.get() is self:
            _watch.set(self.outer)


def note_metered() -> None:
    """Tell all who watch that a wrapped client meters a call."""
    watch = _watch.get()
    while watch is not None:
        if watch.is_open:
            watch.has_metered = True
        watch = watch.outer
