"""A broker as the worker would have prepared it, and what has arrived there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu import Connection, Exchange, Queue

from taximeter import Meter, names


class RabbitBroker:
    """One virtual host."""

    def __init__(self, url: str) -> None:
        self.url = url

    def declare(self, *routing_keys: str) -> None:
        with Connection(self.url) as connection, connection.channel() as channel:
            exchange = Exchange(names.EXCHANGE, "topic", durable=True)
            exchange(channel).declare()
            for key in routing_keys:
                Queue(
                    f"taximeter.{key}", exchange, routing_key=key, durable=True, queue_arguments=names.QUEUE_ARGUMENTS
                )(channel).declare()

    def messages(self, queue: str = names.USAGE_QUEUE) -> Iterator[bytes]:
        with Connection(self.url) as connection, connection.channel() as channel:
            while (message := channel.basic_get(queue, no_ack=True)) is not None:
                assert message.properties["delivery_mode"] == 2
                assert message.content_type == names.CONTENT_TYPE_BATCH
                body = message.body
                yield body if isinstance(body, bytes) else body.encode()


class ValkeyBroker:
    """One database; the lists need no declaration."""

    def __init__(self, url: str) -> None:
        self.url = url

    def declare(self, *routing_keys: str) -> None:
        pass

    def messages(self, queue: str = names.USAGE_QUEUE) -> Iterator[bytes]:
        with redis.Redis.from_url(self.url) as client:
            while (body := client.rpop(queue)) is not None:
                yield body


class Broker:
    """Either kind, with the queues of a worker."""

    def __init__(self, url: str) -> None:
        self._broker = RabbitBroker(url) if url.startswith("amqp") else ValkeyBroker(url)
        self.url = url
        self.declare = self._broker.declare
        self.messages = self._broker.messages

    def events(self, queue: str = names.USAGE_QUEUE) -> list[dict[str, Any]]:
        """Take everything that has arrived, in order."""
        return [event for body in self.messages(queue) for event in json.loads(body)]


@pytest.fixture
def broker(broker_url: str) -> Broker:
    """A broker of either kind, ready for usages and payments."""
    made = Broker(broker_url)
    made.declare(names.USAGE_ROUTING_KEY, names.PAYMENT_ROUTING_KEY)
    return made


@pytest.fixture
def rabbit(amqp_url: str) -> Broker:
    """A RabbitMQ on which nothing has been declared."""
    return Broker(amqp_url)


@pytest.fixture
def broker_at() -> type[Broker]:
    """Wraps the address of a broker that the test has started."""
    return Broker


@pytest.fixture
def make_meter(tmp_path: Path) -> Iterator[Callable[..., Meter]]:
    """Factory of meters with a spool of this test's own, closed at its end without waiting."""
    made: list[Meter] = []

    def make(**settings: Any) -> Meter:
        meter = Meter(**{"spool": tmp_path / "spool", **settings})
        made.append(meter)
        return meter

    yield make
    for meter in made:
        meter.close(timeout=0)
