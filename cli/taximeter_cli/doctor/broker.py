"""The broker: whether its queues are there, kept safely, and consumed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final, assert_never

import amqp
import redis
from kombu.connection import Connection

from taximeter import names
from taximeter.addresses import BrokerKind
from taximeter.brokers.tls import split_tls
from taximeter.redis_connection import no_retry
from taximeter_cli.doctor import flags
from taximeter_cli.doctor.report import Check, verdict
from taximeter_worker.consume.brokers.redis import alive_key
from taximeter_worker.settings import Settings

TIMEOUT_SECONDS: Final = 5
WORKER_ADVICE: Final = (
    "Start a worker: `taximeter worker`; TAXIMETER_SHARDS and TAXIMETER_CONSUME_SHARDS must cover every queue."
)


def look(settings: Settings) -> Iterator[Check]:
    """All checks of the broker."""
    kind = settings.broker_kind
    match kind:
        case BrokerKind.RABBITMQ:
            yield from _rabbitmq(settings)
        case BrokerKind.REDIS:
            yield from _redis(settings)
        case _:
            assert_never(kind)


def _queues(settings: Settings) -> list[str]:
    keys = (*names.usage_routing_keys(settings.shards), names.USAGE_ROUTING_KEY, names.PAYMENT_ROUTING_KEY)
    return list(dict.fromkeys(map(names.queue_of, keys)))


def _rabbitmq(settings: Settings) -> Iterator[Check]:
    url, tls = split_tls(settings.broker_kombu_url)
    waits = {"read_timeout": TIMEOUT_SECONDS, "write_timeout": TIMEOUT_SECONDS}
    with Connection(url, ssl=tls, connect_timeout=TIMEOUT_SECONDS, transport_options=waits) as connection:  # type: ignore[no-untyped-call]
        connection.connect()
        version = connection.connection.server_properties.get("version", "")
        yield Check("broker", ok=True, detail=f"RabbitMQ {version} answers")
        absent, alone, unsafe = [], [], []
        wanted = dict.fromkeys(_queues(settings), names.QUEUE_ARGUMENTS)
        for queue, arguments in (wanted | {names.TASK_QUORUM_QUEUE: names.TASK_QUEUE_ARGUMENTS}).items():
            try:
                with _channel(connection) as channel:
                    _, _, consumers = channel.queue_declare(queue, passive=True)
            except amqp.NotFound:
                absent.append(queue)
                continue
            if not consumers:
                alone.append(queue)
            with contextlib.suppress(amqp.AccessRefused):  # whoever may not declare cannot see how it was declared
                try:
                    with _channel(connection) as channel:
                        channel.queue_declare(queue, durable=True, auto_delete=False, arguments=arguments)
                except amqp.PreconditionFailed:
                    unsafe.append(queue)
        with contextlib.suppress(amqp.NotFound), _channel(connection) as channel:
            _, waiting, consumers = channel.queue_declare(names.TASK_QUEUE, passive=True)
            if waiting and not consumers:  # a running worker moves what is in there
                alone.append(names.TASK_QUEUE)
    yield verdict("queues", _told(absent, "absent"), "all are there", WORKER_ADVICE)
    yield verdict("consumers", _told(alone, "without a consumer"), "every queue is consumed", WORKER_ADVICE)
    yield verdict(
        "broker durability",
        _told(unsafe, "declared otherwise than a quorum queue with our delivery limit and dead letters"),
        "quorum queues with a delivery limit and dead letters",
        "Let the queue run empty with workers on, stop them, delete it, and start them: they declare it as it should be.",
    )


@contextlib.contextmanager
def _channel(connection: Any) -> Iterator[Any]:
    channel = connection.connection.channel()
    try:
        yield channel
    finally:
        with contextlib.suppress(amqp.AMQPError, OSError):
            channel.close()


def _redis(settings: Settings) -> Iterator[Check]:
    client = redis.Redis.from_url(
        settings.broker_redis_url,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        protocol=2,
        decode_responses=True,
        retry=no_retry(),
    )
    with contextlib.closing(client):
        version = client.info("server").get("redis_version", "")
        yield Check("broker", ok=True, detail=f"Redis or Valkey {version} answers")
        consumed: set[str] = set()
        for consumer, about in client.hgetall(names.CONSUMERS).items():
            if client.exists(alive_key(str(consumer))):
                consumed.update(str(about).rpartition(" ")[2].split(","))
        alone = [queue for queue in _queues(settings) if queue not in consumed]
        yield verdict("consumers", _told(alone, "without a consumer"), "every queue is consumed", WORKER_ADVICE)
        yield from flags.persistence("broker", client)


def _told(queues: list[str], what: str) -> str:
    return f"{what}: {', '.join(queues)}" if queues else ""
