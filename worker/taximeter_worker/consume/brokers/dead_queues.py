"""Queues that RabbitMQ cannot serve: one of them must not keep the worker from the others.

A queue may outlive its only replica, or have lost its leader: then the broker closes the connection with an internal error
when somebody consumes it, or never replies, for ever. Twice in a row, each time on a new connection on which everything
before it was answered, is not an accident. Such a queue is left out for a while and tried again.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator

import amqp
import structlog

from taximeter_worker.errors import SourceLostError

log = structlog.get_logger(__name__)

TRIES = 2
LEFT_OUT_SECONDS = 120.0
"""Each new try costs a reconnect, and one that gets no reply the time that replies are waited for."""
HINT = (
    "the other queues are served meanwhile. Bring back the node that holds it; if nothing can bring it back, delete the queue:"
    " the worker declares it again"
)


class DeadQueues:
    """Which queues are left out, and until when."""

    def __init__(self) -> None:
        self._failed: Counter[str] = Counter()
        self._until: dict[str, float] = {}

    @property
    def now(self) -> frozenset[str]:
        """Those that are left out."""
        return frozenset(self._until)

    def begin(self) -> None:
        """On a new connection: those whose time is over are tried again."""
        for queue in self.due():
            del self._until[queue]

    def due(self) -> list[str]:
        """Those whose time is over."""
        return [queue for queue, until in self._until.items() if time.monotonic() >= until]

    def answered(self, queue: str) -> None:
        """It is consumed."""
        if self._failed.pop(queue, 0) >= TRIES:
            log.info("queue_back", queue=queue)

    @contextlib.contextmanager
    def asking(self, queue: str) -> Iterator[None]:
        """What the broker does in here, it does because of this queue. Raises ``SourceLostError``."""
        try:
            yield
        except (SourceLostError, amqp.InternalError, amqp.NotFound) as error:
            self._failed[queue] += 1
            told = str(error) if isinstance(error, SourceLostError) else f"{type(error).__name__} for {queue}: {error}"
            if self._failed[queue] >= TRIES:
                self._until[queue] = time.monotonic() + LEFT_OUT_SECONDS
                log.error(  # noqa: TRY400 -- the broker says it all; a traceback would not help
                    "queue_dead", queue=queue, broker_says=told[:300], again_in_seconds=LEFT_OUT_SECONDS, hint=HINT
                )
            raise SourceLostError(told) from error
