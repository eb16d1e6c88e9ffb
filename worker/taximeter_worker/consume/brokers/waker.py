"""Waiting for sockets, and a socket pair that ends such a wait from any thread."""

from __future__ import annotations

import contextlib
import math
import select
import socket
from collections.abc import Sequence
from typing import Protocol, TypeVar


class HasFileno(Protocol):
    """Whatever has a file descriptor."""

    def fileno(self) -> int:
        """The descriptor."""


Reader = TypeVar("Reader", bound=HasFileno)


def wait_readable(readers: Sequence[Reader], timeout_seconds: float) -> list[Reader]:
    """Those of the readers from which something can be read; waits for the first at most this long.

    By poll(): select() takes no descriptor above 1,023, and a process may have more.
    """
    by_descriptor = {reader.fileno(): reader for reader in readers}
    poller = select.poll()
    for descriptor in by_descriptor:
        poller.register(descriptor, select.POLLIN)
    return [by_descriptor[descriptor] for descriptor, _ in poller.poll(math.ceil(timeout_seconds * 1000))]


class Waker:
    """Put it among the readers of `wait_readable`; ``wake`` makes it readable until ``clear``."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._theirs.setblocking(False)

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._ours.fileno()

    def wake(self) -> None:
        """Make the waiting thread run. Where it is full that is about to happen; where it is closed nobody waits."""
        with contextlib.suppress(OSError):
            self._theirs.send(b"\0")

    def clear(self) -> None:
        """Forget the wakes so far."""
        with contextlib.suppress(BlockingIOError):
            self._ours.recv(4096)

    def close(self) -> None:
        """Free the sockets. A later ``wake`` does nothing."""
        self._ours.close()
        self._theirs.close()
