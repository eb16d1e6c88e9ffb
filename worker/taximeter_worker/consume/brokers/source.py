"""Where messages come from: the interface that every kind of broker implements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol, assert_never

from taximeter import names
from taximeter.addresses import BrokerKind
from taximeter_db.ledger.events import Rejected
from taximeter_worker.decode import transfer
from taximeter_worker.settings import Settings

CANARY_QUEUE: Final = names.queue_of("canary")
"""What the queues of canaries are called together; each has the worker's own name behind it."""


@dataclass(slots=True)
class Message:
    """One broker message, as received.

    Attributes:
        body: the bytes; nothing has looked at them yet.
        content_type: what the producer said they are.
        queue: the queue they came from.
        received_at: by the monotonic clock, in seconds.
        given_up: the broker put it aside after too many deliveries; it must be kept, not booked.
        distrusted: what is wrong with its signature; it must be kept, not booked.
        properties: what else the sender gave: headers, encoding, names; all of it plain JSON values.
        may_pay: it came by the way that leads to payments alone, so that whoever sent it may make money.
    """

    body: bytes
    content_type: str | None
    queue: str
    received_at: float
    given_up: bool = False
    distrusted: str | None = None
    may_pay: bool = False
    properties: dict[str, Any] | None = None

    def rejected(self, reason: str, detail: str) -> Rejected:
        """Reject the message as a whole, unread."""
        # A signature that does not hold says nothing about the right to send payments.
        kind = "payment" if self.may_pay and self.distrusted is None else "message"
        properties = transfer.as_text(self.properties)
        return Rejected(reason, detail, self.body, self.content_type, kind=kind, properties=properties)


class Source(Protocol):
    """A connection to a broker that delivers messages in order and takes acknowledgements for the oldest of them.

    All methods except ``wake`` belong to the one thread that owns the source. Any of them may raise ``SourceLostError``: then
    everything unacknowledged will be delivered again, and ``open`` starts over.
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


def make_source(settings: Settings, canary_key: str | None = None) -> Source:
    """The source for the broker that the settings name; ``canary_key``: routing key of messages to this worker alone."""
    kind = settings.broker_kind
    match kind:
        case BrokerKind.RABBITMQ:
            from taximeter_worker.consume.brokers.rabbitmq import RabbitmqSource

            return RabbitmqSource(settings, canary_key)
        case BrokerKind.REDIS:
            from taximeter_worker.consume.brokers.redis import RedisSource

            return RedisSource(settings, canary_key)
        case _:
            assert_never(kind)
