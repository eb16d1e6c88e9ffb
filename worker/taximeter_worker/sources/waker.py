"""A socket pair that makes a ``select`` return, from any thread."""

from __future__ import annotations

import contextlib
import socket


class Waker:
    """Put it among the readers of ``select``; ``wake`` makes it readable until ``clear``."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._theirs.setblocking(False)

    def fileno(self) -> int:
        """What ``select`` asks for."""
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
