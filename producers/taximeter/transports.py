"""What the publisher needs from a broker, and which broker an address means."""

from __future__ import annotations

from typing import NamedTuple, Protocol
from urllib.parse import parse_qs, urlsplit

from taximeter.errors import ConfigurationError
from taximeter.signing import ProducerKey


class Settled(NamedTuple):
    """The broker's verdict on one message."""

    tag: int
    error: str | None
    """None: the broker has the message. Else why it has not."""


class Transport(Protocol):
    """One connection to a broker, used by one thread.

    Every method may raise the client library's errors; the publisher then drops the transport and makes a new one.
    """

    def connect(self) -> None:
        """Connect, within the connection timeout."""

    def publish(self, routing_key: str, body: bytes) -> int:
        """Send one batch message and return its tag. The verdict comes from `settle`."""

    def settle(self, timeout_seconds: float) -> list[Settled]:
        """Wait at most so long for verdicts; also keeps an idle connection alive."""

    def drop(self) -> None:
        """Let go of the connection at once, without a farewell. Never waits, never raises."""

    def interrupt(self) -> None:
        """Make a call that waits in another thread fail at once. Never raises."""

    def abandon(self) -> None:
        """In a forked child: close this copy of the socket, and leave the parent's connection as it is."""


def open_transport(url: str, producer_key: str | None = None) -> Transport:
    """Return the unconnected transport for a broker's address; `producer_key` signs what goes to a Redis or Valkey.

    Raises:
        ConfigurationError: The address is of no kind that producers can publish to, or the key does not fit.
    """
    scheme = url.partition("://")[0]
    if scheme in {"amqp", "amqps", "pyamqp"}:
        if producer_key:
            raise ConfigurationError(
                "TAXIMETER_PRODUCER_KEY is for a Redis or Valkey broker; RabbitMQ knows its users by itself. Unset it."
            )
        from taximeter.rabbitmq import RabbitTransport

        return RabbitTransport(url)
    if scheme in {"redis", "rediss", "unix", "redis+socket"}:
        from taximeter.valkey import ValkeyTransport

        try:
            return ValkeyTransport(redis_url(url), ProducerKey.parse(producer_key) if producer_key else None)
        except ValueError as error:
            raise ConfigurationError(f"TAXIMETER_BROKER_URL cannot be understood: {error}") from error
    raise ConfigurationError(
        f"TAXIMETER_BROKER_URL starts with {scheme!r}; use amqp://, amqps://, redis://, rediss:// or unix://"
    )


def redis_url(url: str) -> str:
    """Translate kombu's ``redis+socket://`` address into the ``unix://`` form that redis-py reads."""
    if not url.startswith("redis+socket://"):
        return url
    parts = urlsplit(url)
    database = parse_qs(parts.query).get("virtual_host", ["0"])[0].strip("/")
    user = f"{parts.netloc}" if "@" in parts.netloc else ""
    return f"unix://{user}{parts.path}?db={database}"
