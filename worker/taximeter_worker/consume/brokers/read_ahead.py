"""Reading ahead below py-amqp, with an end to its patience."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable, Iterator

from taximeter_worker.errors import SourceLostError

READ_BYTES = 128 * 1024
PROGRESS_BYTES = 1024
"""A piece of this size brings messages; a heartbeat has 8 bytes."""


class ReadAhead:
    """Stands in for ``socket.recv`` below py-amqp: reads large pieces, hands out small ones.

    When nothing is there and the socket does not wait, it raises ``socket.timeout``, which py-amqp takes as "keep the half
    of the frame and come back". (Its own reaction to EAGAIN inside a frame is to spin.)
    """

    def __init__(self, recv: Callable[[int], bytes]) -> None:
        self._recv = recv
        self._ahead = b""
        self._at = 0
        self._seconds = 0.0
        self._deadline: float | None = None

    def __call__(self, size: int) -> bytes:
        """At most ``size`` bytes; raises ``TimeoutError`` when there are none."""
        if self._at >= len(self._ahead):
            if self._deadline is not None and time.monotonic() > self._deadline:
                raise TimeoutError
            try:
                piece = self._recv(max(size, READ_BYTES))
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise TimeoutError from None
            if self._deadline is not None and len(piece) >= PROGRESS_BYTES:
                self._deadline = time.monotonic() + self._seconds
            if len(piece) <= size:
                return piece
            self._ahead, self._at = piece, 0
        start = self._at
        self._at = start + size
        return self._ahead[start : self._at]

    @property
    def pending(self) -> bool:
        """Whether something was read that nobody has taken."""
        return self._at < len(self._ahead)

    @contextlib.contextmanager
    def reply_within(self, seconds: float, step: str) -> Iterator[None]:
        """Bound the wait for the broker's reply to ``step``; raises ``SourceLostError``, which names it.

        py-amqp waits until the reply comes, and each heartbeat renews the socket's own timeout: a broker that is well while
        one of its queues is not would be waited for without end. Messages that come before the reply renew the time; they
        end by themselves, because nothing is acknowledged meanwhile.
        """
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        try:
            yield
        except TimeoutError as error:
            raise SourceLostError(f"the broker does not reply to {step}") from error
        finally:
            self._deadline = None
