"""What the publisher needs from a broker. `taximeter.brokers.opening` picks the implementation by address."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Settled(NamedTuple):
    """The broker's verdict on one message."""

    tag: int
    error: str | None
    """None: the broker has the message. Else why it has not."""
    refused: bool = False
    """The broker would not take the message over this connection. A new one may fare better: after the death of a node,
    RabbitMQ goes on refusing over a channel that was opened before the queue had its new leader."""


class MessageTooLargeError(Exception):
    """The broker refuses a message for its size, and the connection is lost.

    Attributes:
        bytes_max: The largest message that the broker takes, or None where it does not say; then it is the message that
            was being published.
    """

    def __init__(self, sentence: str, bytes_max: int | None = None) -> None:
        super().__init__(sentence)
        self.bytes_max = bytes_max


class Transport(Protocol):
    """One connection to a broker, used by one thread.

    Every method may raise the client library's errors; the publisher then drops the transport and makes a new one.
    """

    def connect(self) -> None:
        """Connect, within the connection timeout."""

    def publish(self, routing_key: str, body: bytes) -> int:
        """Send one batch message and return its tag. The verdict comes from `settle`."""

    def settle(self, timeout_seconds: float) -> list[Settled]:
        """Wait at most this long for verdicts; also keeps an idle connection alive."""

    def drop(self) -> None:
        """Close the connection at once, without telling the broker. Never waits, never raises."""

    def interrupt(self) -> None:
        """Make a call that waits in another thread fail at once. Never raises."""

    def abandon(self) -> None:
        """In a forked child: close this copy of the socket, and leave the parent's connection as it is."""
