"""A cache that cannot grow without limit."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BoundedCache(dict[K, V]):
    """A dict that forgets everything once it is full: the cheapest rule, and all that a cache of checks needs.

    Read it as a dict; write with `remember`.
    """

    __slots__ = ("_entries_max",)

    def __init__(self, entries_max: int) -> None:
        super().__init__()
        self._entries_max = entries_max

    def remember(self, key: K, value: V) -> V:
        """Keep the value and return it."""
        if len(self) >= self._entries_max:
            self.clear()
        self[key] = value
        return value
