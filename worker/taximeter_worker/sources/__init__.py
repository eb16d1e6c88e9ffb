"""Where messages come from. ``amqp`` and ``redis`` hide the two kinds of broker behind one small interface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from taximeter_worker.settings import Settings


@dataclass(slots=True)
class Message:
    """One broker message, as received.

    Attributes:
        body: the bytes; nothing has looked at them yet.
        content_type: what the producer said they are.
        queue: the queue they came from.
        received_at: Unix time in seconds.
        given_up: the broker put it aside after too many deliveries; it must be kept, not booked.
        distrusted: what is wrong with its signature; it must be kept, not booked.
        may_pay: it came by the way that leads to payments alone, so that whoever sent it may make money.
    """

    body: bytes
    content_type: str | None
    queue: str
    received_at: float
    given_up: bool = False
    distrusted: str | None = None
    may_pay: bool = False


class Source(Protocol):
    """A connection to a broker that delivers messages in order and takes acknowledgements for the oldest of them.

    All methods except ``wake`` belong to the one thread that owns the source. Any of them may raise ``SourceLost``: then
    everything unacknowledged will be delivered again, and ``open`` starts anew.
    """

    generation: int
    """Grows with every ``open``: an acknowledgement belongs to the generation that delivered its message."""
    depth: dict[str, int]
    """Messages waiting in each queue when last looked at."""

    @property
    def down(self) -> frozenset[str]:
        """Queues that the broker cannot serve, and that are left out for now."""

    def open(self) -> None:
        """Connect and start to receive."""

    def poll(self, timeout_seconds: float) -> list[Message]:
        """Everything that has arrived; waits for the first at most this long, and never longer than until ``wake``."""

    def ack(self, count: int) -> None:
        """Acknowledge the ``count`` oldest messages that were polled and are not yet acknowledged."""

    def pause(self) -> None:
        """Ask for no more messages. Those already here may still be polled."""

    def wake(self) -> None:
        """Make a waiting ``poll`` return. From any thread, at any time."""

    def close(self) -> None:
        """Give back what is not acknowledged and disconnect for good. Never raises."""


def make_source(settings: Settings) -> Source:
    """The source for the broker that the settings name."""
    if settings.broker_is_redis:
        from taximeter_worker.sources.redis import RedisSource

        return RedisSource(settings)
    from taximeter_worker.sources.amqp import AmqpSource

    return AmqpSource(settings)
