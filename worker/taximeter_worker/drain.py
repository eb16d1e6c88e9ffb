"""One broker's queues into another: every message is acknowledged at its source once the target has confirmed it.

Whatever ends a run before an acknowledgement leaves the message with the source, which delivers it again: then the target
has it twice, and the ledger books it once, by its event's key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, assert_never

import amqp
import msgspec
import redis

from taximeter import limits, names
from taximeter.addresses import BrokerKind
from taximeter.brokers.opening import PRODUCER_KEY_VARIABLE, Broker
from taximeter.brokers.tls import split_tls
from taximeter.brokers.transport import MessageTooLargeError, Transport
from taximeter.errors import ConfigurationError
from taximeter_db.secret import redact
from taximeter_worker import failpoints
from taximeter_worker.broker_connection import BrokerConnection
from taximeter_worker.consume.brokers.redis import ALIVE_MILLISECONDS
from taximeter_worker.consume.brokers.source import Message, Source, make_source
from taximeter_worker.decode import transfer
from taximeter_worker.decode.result import EventRejectedError
from taximeter_worker.errors import DrainError, SourceLostError
from taximeter_worker.settings import Settings

POLL_SECONDS: Final = 0.5
IDLE_SECONDS: Final = 3.0
"""A source that brings nothing for this long is empty."""
IDLE_SECONDS_AMONG_OTHERS: Final = ALIVE_MILLISECONDS / 1000 + 10
"""On Redis, where another consumer is noted: it may be dead, and what it had taken comes back when that is certain."""
CONFIRM_SECONDS: Final = 30.0
TIMEOUT_SECONDS: Final = 5.0
_BROKER: Final = "TAXIMETER_BROKER_URL"
_KEYS: Final = "TAXIMETER_PRODUCER_KEYS"
_NOT_NEEDED: Final = ("database_url", "redis_url")
_REFUSALS: Final = (amqp.AMQPError, redis.RedisError, OSError, LookupError, AttributeError)
"""What a broker or its client's library raises: LookupError, where an exchange is missing; AttributeError, where py-amqp
lost its socket."""


class Drained(msgspec.Struct):
    """How many messages were moved, how many of each queue, and their bytes."""

    messages: int = 0
    bytes: int = 0
    queues: dict[str, int] = {}


def drain(
    source_url: str, target_url: str, environ: Mapping[str, str], progress: Callable[[int, int], None] | None = None
) -> Drained:
    """Move all messages; ends when the source brings no more.

    Args:
        source_url: Which broker to empty.
        target_url: Where its messages go; a worker must have declared its queues.
        environ: Other settings: shards, and the keys of signed messages.
        progress: Called with the number of messages moved, and of those known so far.

    Raises:
        ConfigurationError: An address or a setting makes no sense.
        DrainError: Both addresses lead to one broker, a broker does not answer or refuses a message, or a message's
            signature does not hold. What was not acknowledged is still with the source.
    """
    settings = _settings(source_url, environ)
    target = _settings(target_url, environ)
    broker = Broker(target_url, environ.get(PRODUCER_KEY_VARIABLE) if target.broker_kind is BrokerKind.REDIS else None)
    with_others, whereabouts = _look("source", settings)
    if whereabouts == _look("target", target)[1]:
        raise DrainError("Both addresses lead to one broker: there is nothing to move. Name another one with --to.")
    source, transport = make_source(settings), broker.open()
    try:
        patience = IDLE_SECONDS_AMONG_OTHERS if with_others else IDLE_SECONDS
        return _Drain(source, transport, progress).run(patience)
    finally:
        transport.drop()
        source.close()


class _Drain:
    """One run, with its connections."""

    def __init__(self, source: Source, transport: Transport, progress: Callable[[int, int], None] | None) -> None:
        self._source = source
        self._transport = transport
        self._progress = progress
        self._drained = Drained()

    def run(self, patience_seconds: float) -> Drained:
        try:
            self._source.open()
        except SourceLostError as error:
            raise DrainError(f"The source cannot be reached: {redact(str(error))}.") from error
        known = sum(self._source.depth.values())
        try:
            self._transport.connect()
            moved_at = time.monotonic()
            while time.monotonic() - moved_at < patience_seconds:
                if messages := self._source.poll(POLL_SECONDS):
                    self._move(messages)
                    moved_at = time.monotonic()
                    if self._progress is not None:
                        self._progress(self._drained.messages, max(known, self._drained.messages))
        except SourceLostError as error:
            raise DrainError(
                f"The source went away: {redact(str(error))}. What was not moved is still there; run it again."
            ) from error
        except MessageTooLargeError as error:
            raise DrainError(
                f"The target does not take a message of this size ({error}). Let it take larger ones; nothing is lost."
            ) from error
        except _REFUSALS as error:
            told = redact(str(error).strip().partition("\n")[0])
            raise DrainError(
                f"The target failed: {told or type(error).__name__}. What it did not confirm is still with the source; run it"
                " again."
            ) from error
        return self._drained

    def _move(self, messages: list[Message]) -> None:
        """Publish, wait for the verdicts, and only then acknowledge."""
        if any(message.distrusted for message in messages):
            raise DrainError(
                "A message at the source has a signature that does not hold, and moving it would hide that. Run a worker on"
                " the source: it quarantines such messages."
            )
        waiting = {self._transport.publish(routing_key_of(message), body_of(message)) for message in messages}
        deadline = time.monotonic() + CONFIRM_SECONDS
        while waiting:
            for verdict in self._transport.settle(POLL_SECONDS):
                if verdict.error is not None:
                    raise DrainError(
                        f"The target did not take a message: {verdict.error}. It is still with the source."
                    )
                waiting.discard(verdict.tag)
            if waiting and time.monotonic() > deadline:
                raise DrainError(
                    f"The target confirmed nothing for {CONFIRM_SECONDS:.0f} seconds. Check its memory and disk; nothing is"
                    " lost, run it again."
                )
        failpoints.hit("before_drain_ack")
        self._source.ack(len(messages))
        failpoints.hit("after_drain_ack")
        for message in messages:
            self._drained.messages += 1
            self._drained.bytes += len(message.body)
            self._drained.queues[message.queue] = self._drained.queues.get(message.queue, 0) + 1


def routing_key_of(message: Message) -> str:
    """Where a message belongs at the target; what was given up begins again.

    A message that may not make money at the source goes the way that may not either.
    """
    if message.may_pay:
        return names.PAYMENT_ROUTING_KEY
    if message.queue in {names.PAYMENT_QUEUE, names.DEAD_QUEUE}:
        return names.USAGE_ROUTING_KEY
    return message.queue.removeprefix(f"{names.EXCHANGE}.")


def body_of(message: Message) -> bytes:
    """The message as a batch, which every kind of broker carries: a list item has no content type and no headers.

    What cannot be read goes as it is, and is quarantined at the target as it would have been at the source.
    """
    try:
        plain = transfer.opened(message.body, message.properties, limits.MESSAGE_BYTES_MAX)
        attributes = transfer.attributes_of(message.content_type, message.properties)
        if attributes is not None:
            plain = transfer.structured(attributes, plain, message.content_type)
        elif plain.lstrip()[:1] != b"{":
            return message.body
        msgspec.json.decode(plain, type=msgspec.Raw)  # one whole value: nothing in it can pass for another event
    except (EventRejectedError, msgspec.MsgspecError, RecursionError):
        return message.body
    return b"[%b]" % plain


def _settings(url: str, environ: Mapping[str, str]) -> Settings:
    known = {**environ, _BROKER: url}
    if url.startswith(tuple(f"{scheme}://" for scheme in BrokerKind.RABBITMQ.value)):
        known.pop(_KEYS, None)  # they are for the other broker
    return Settings.from_env(known, without=_NOT_NEEDED)


def _look(role: str, settings: Settings) -> tuple[bool, tuple[Any, ...]]:
    """Whether others are noted as consumers, where a broker notes them, and what tells it from any other broker."""
    try:
        match settings.broker_kind:
            case BrokerKind.RABBITMQ:
                url, tls = split_tls(settings.broker_kombu_url)
                with BrokerConnection(url, ssl=tls, connect_timeout=TIMEOUT_SECONDS) as connection:  # type: ignore[no-untyped-call]
                    amqp_connection = connection.connection
                    cluster = amqp_connection.server_properties.get("cluster_name")
                    return False, (BrokerKind.RABBITMQ, cluster, connection.virtual_host or "/")
            case BrokerKind.REDIS:
                with redis.Redis.from_url(
                    settings.broker_redis_url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS
                ) as client:
                    database = client.connection_pool.connection_kwargs.get("db") or 0
                    server = client.info("server")["run_id"]
                    return bool(client.hlen(names.CONSUMERS)), (BrokerKind.REDIS, server, database)
            case kind:
                assert_never(kind)
    except ConfigurationError:
        raise
    except _REFUSALS as error:
        told = redact(str(error).strip().partition("\n")[0])
        raise DrainError(f"The {role} cannot be reached: {told or type(error).__name__}.") from error
