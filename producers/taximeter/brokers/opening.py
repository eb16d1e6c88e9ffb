"""Which broker an address means."""

from __future__ import annotations

from collections import deque
from typing import Final, assert_never

from taximeter.addresses import BROKER_URL_VARIABLE, BrokerKind, broker_kind, check_broker_url
from taximeter.brokers.nodes import split_nodes
from taximeter.brokers.signing import ProducerKey
from taximeter.brokers.transport import Transport
from taximeter.errors import ConfigurationError

PRODUCER_KEY_VARIABLE: Final = "TAXIMETER_PRODUCER_KEY"


class Broker:
    """A broker's address, understood when it is given; opens connections to it.

    Args:
        url: Address of the broker; several RabbitMQ nodes are separated by semicolons.
        producer_key: Signs what goes to a Redis or Valkey.

    Raises:
        ConfigurationError: Producers cannot publish to such an address, or the key does not fit it.
    """

    def __init__(self, url: str, producer_key: str | None = None) -> None:
        check_broker_url(url)
        self._url = url
        self._kind = broker_kind(url)
        if self._kind is not BrokerKind.REDIS and producer_key:
            raise ConfigurationError(
                f"{PRODUCER_KEY_VARIABLE} is for a Redis or Valkey broker; RabbitMQ knows its users by itself. Unset it."
            )
        self._key = ProducerKey.parse(producer_key) if producer_key else None
        # Shared by the connections, one after the other: the next begins with the node that did not fail last.
        self._nodes = split_nodes(url) if self._kind is BrokerKind.RABBITMQ else deque()
        self.open()  # whatever else is wrong shows now, not in the background

    def open(self) -> Transport:
        """Return a new, unconnected transport."""
        match self._kind:
            case BrokerKind.RABBITMQ:
                from taximeter.brokers.rabbitmq import RabbitmqTransport

                return RabbitmqTransport(self._nodes)
            case BrokerKind.REDIS:
                from taximeter.brokers.redis import RedisTransport

                return RedisTransport(self._url, BROKER_URL_VARIABLE, self._key)
            case _:
                assert_never(self._kind)
