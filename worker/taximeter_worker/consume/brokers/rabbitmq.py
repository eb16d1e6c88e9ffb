"""RabbitMQ: raw messages from quorum queues over py-amqp.

kombu finds the broker (addresses, TLS, failover); below it the channel is used as it is, because decoding a message is
the booker's business and a body must never reach a serializer that trusts it.

Three things decide the speed and the safety here. Frames are read ahead from the socket in large pieces, so that a message
costs no system calls of its own. Draining never waits, so a batch is flushed the moment nothing more is there. And one
thread owns the connection, so heartbeats go out on time whatever the database does.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import amqp
import structlog

from taximeter import names
from taximeter.brokers.tls import explained, split_tls
from taximeter_worker.broker_connection import BrokerConnection
from taximeter_worker.consume.brokers.amqp_properties import properties_of
from taximeter_worker.consume.brokers.dead_queues import DeadQueues
from taximeter_worker.consume.brokers.read_ahead import ReadAhead
from taximeter_worker.consume.brokers.source import CANARY_QUEUE, Message
from taximeter_worker.consume.brokers.unreadable_headers import tolerant
from taximeter_worker.consume.brokers.waker import Waker, wait_readable
from taximeter_worker.errors import SourceLostError
from taximeter_worker.settings import Settings

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 20
IO_TIMEOUT_SECONDS = 10
REPLY_SECONDS = 2.0 * IO_TIMEOUT_SECONDS
"""How long one reply may take while the connection itself is alive."""
CHECK_SECONDS = 10.0
"""How often the depth of the queues is read; two idle looks at a filled queue mean that the consumer is dead."""
PREFETCH_MIN = 4
PREFETCH_START = 64
PREFETCH_MAX = 4000
SIDE_PREFETCH_MAX = 50
"""For payments and given-up messages, which are few."""
CANARY_PREFETCH = 10
_WITH_PAYMENTS = (names.PAYMENT_QUEUE, names.DEAD_QUEUE)
"""What is given up keeps the routing key with which it was sent."""
_WAYS_TO_PAY = (names.PAYMENT_ROUTING_KEY, names.PAYMENT_QUEUE)
"""The routing keys of payments: by our exchange, and by the default one, as who moves messages from queue to queue sends them."""


class RabbitmqSource:
    """See ``Source``."""

    def __init__(self, settings: Settings, canary_key: str | None = None) -> None:
        self.generation = 0
        self.depth: dict[str, int] = {}
        self._url, self._tls = split_tls(settings.broker_kombu_url)
        self._drain_bytes_max = settings.batch_bytes_max
        self._held_bytes_max = settings.held_bytes_max
        self._usage_queues = settings.usage_queues
        self._canary_key = canary_key
        self._declared_queues = tuple(map(names.queue_of, names.usage_routing_keys(settings.shards)))
        self._waker = Waker()
        self._connection: Any = None
        self._channel: Any = None
        self._read_ahead: ReadAhead | None = None
        self._tags: dict[str, str] = {}
        self._dead = DeadQueues()
        self._arrived: list[Message] = []
        self._unacked: deque[tuple[int, int]] = deque()  # delivery tag, bytes
        self._held_bytes = 0
        self._message_bytes = 0.0  # moving average
        self._prefetch = PREFETCH_START
        self._lost = ""
        self._paused = False
        self._tick_at = self._check_at = 0.0
        self._received = self._received_at_check = self._idle_checks = 0

    # -- Source -----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect, declare the topology and consume."""
        self._disconnect()
        self.generation += 1
        self._arrived, self._unacked, self._held_bytes = [], deque(), 0
        self._lost, self._paused, self._idle_checks, self._tags = "", False, 0, {}
        self._dead.begin()
        with self._translated():
            self._connection = BrokerConnection(  # type: ignore[no-untyped-call]
                self._url,
                ssl=self._tls,
                connect_timeout=IO_TIMEOUT_SECONDS,
                heartbeat=HEARTBEAT_SECONDS,
                transport_options={"read_timeout": IO_TIMEOUT_SECONDS, "write_timeout": IO_TIMEOUT_SECONDS},
            )
            try:
                self._connection.connect()
            except (amqp.AMQPError, OSError) as error:
                raise (error if self._tls is None else explained(error)) from error
            transport = self._amqp.transport
            self._read_ahead = transport._quick_recv = ReadAhead(transport._quick_recv)  # noqa: SLF001 -- see ReadAhead
            self._amqp.on_inbound_frame = tolerant(self._amqp.on_inbound_frame)
            self._open_channel()
            self._declare()
            self._consume()
            if self._canary_key is not None:
                self._consume_canaries(self._canary_key)
            self._check(look_only=True)

    @property
    def down(self) -> frozenset[str]:
        """See ``Source``."""
        return self._dead.now

    def poll(self, timeout_seconds: float) -> list[Message]:
        """See ``Source``."""
        with self._translated():
            if not (self._read_ahead and self._read_ahead.pending):
                wait_readable([self._amqp.sock, self._waker], timeout_seconds)
            self._waker.clear()
            self._drain()
            if self._lost:
                raise SourceLostError(self._lost)
            now = time.monotonic()
            if now >= self._tick_at:
                self._tick_at = now + 1
                self._amqp.heartbeat_tick()
            if now >= self._check_at:
                self._check()
            if self._arrived:
                self._adapt_prefetch()
        arrived, self._arrived = self._arrived, []
        return arrived

    def ack(self, count: int) -> None:
        """See ``Source``."""
        tag = 0
        for _ in range(count):
            tag, size = self._unacked.popleft()
            self._held_bytes -= size
        if tag:
            with self._translated():
                self._channel.basic_ack(tag, multiple=True)

    def pause(self) -> None:
        """See ``Source``."""
        with self._translated():
            self._paused = True
            for queue in tuple(self._tags):
                self._cancel(queue)

    def wake(self) -> None:
        """See ``Source``."""
        self._waker.wake()

    def close(self) -> None:
        """See ``Source``."""
        self._disconnect()
        self._waker.close()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _disconnect(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            # A plain socket close is enough for the broker to requeue, and unlike the polite one it never waits.
            with contextlib.suppress(Exception):
                connection.collect(socket_timeout=1)

    @property
    def _amqp(self) -> Any:
        if self._connection is None:
            raise SourceLostError("not connected")
        return self._connection.connection

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn whatever a dying connection throws into ``SourceLostError``.

        py-amqp also raises AttributeError when the socket is gone under its hands.
        """
        try:
            yield
        except SourceLostError:
            raise
        except (amqp.AMQPError, OSError, AttributeError, KeyError) as error:
            # Only the kind and the broker's own words: the text of an OSError never holds the URL.
            raise SourceLostError(f"{type(error).__name__}: {error}") from error

    def _reply_to(self, step: str) -> contextlib.AbstractContextManager[None]:
        if self._read_ahead is None:
            raise SourceLostError("not connected")
        return self._read_ahead.reply_within(REPLY_SECONDS, step)

    def _open_channel(self) -> None:
        with self._reply_to("the opening of a channel"):
            self._channel = self._amqp.channel()
        # When the broker closes a channel, py-amqp opens it again before it tells; that one would have no consumers, and
        # the reply to the opening cannot be waited for while draining.
        self._channel._do_revive = lambda: None  # noqa: SLF001 -- as the comment says

    def _declare(self) -> None:
        with self._reply_to("the declaration of the exchanges"):
            self._channel.exchange_declare(names.EXCHANGE, "topic", durable=True, auto_delete=False)
            self._channel.exchange_declare(names.DEAD_EXCHANGE, "fanout", durable=True, auto_delete=False)
        for queue, exchange, key, arguments in (
            (names.DEAD_QUEUE, names.DEAD_EXCHANGE, "", names.DEAD_QUEUE_ARGUMENTS),
            # Every shard's, not this worker's alone: no event may wait for a worker that is yet to be started.
            *(
                (queue, names.EXCHANGE, queue.removeprefix(f"{names.EXCHANGE}."), names.QUEUE_ARGUMENTS)
                for queue in dict.fromkeys((*self._declared_queues, names.USAGE_QUEUE, names.PAYMENT_QUEUE))
            ),
        ):
            if queue not in self.down:
                with self._dead.asking(queue):
                    self._declare_queue(queue, exchange, key, dict(arguments))

    def _declare_queue(self, queue: str, exchange: str, key: str, arguments: dict[str, Any]) -> None:
        try:
            with self._reply_to(f"the declaration of {queue}"):
                self._channel.queue_declare(queue, durable=True, auto_delete=False, arguments=arguments)
        except amqp.PreconditionFailed as error:
            log.warning("queue_differs", queue=queue, broker_says=error.reply_text, hint="it is used as it is")
            self._open_channel()
        with self._reply_to(f"the binding of {queue}"):
            self._channel.queue_bind(queue, exchange, key)

    def _consume(self) -> None:
        for queue, prefetch in (
            *((queue, self._prefetch) for queue in self._usage_queues),
            (names.PAYMENT_QUEUE, min(self._prefetch, SIDE_PREFETCH_MAX)),
            (names.DEAD_QUEUE, min(self._prefetch, SIDE_PREFETCH_MAX)),
        ):
            if queue not in self.down:
                with self._dead.asking(queue):
                    self._consume_queue(queue, prefetch)
                self._dead.answered(queue)

    def _consume_canaries(self, key: str) -> None:
        """Consume a queue of this connection's own, which goes with it."""
        # Each connection has another: the broker may not know yet that the last one is dead, and its queue is still there.
        queue = names.queue_of(f"{key}.{self.generation}")
        try:
            with self._reply_to(f"the declaration of {queue}"):
                self._channel.queue_declare(queue, durable=False, exclusive=True, auto_delete=True)
            with self._reply_to(f"the binding of {queue}"):
                self._channel.queue_bind(queue, names.EXCHANGE, key)
        except amqp.AccessRefused as error:
            log.warning(
                "no_canary_queue", broker_says=error.reply_text, hint=f"let this user configure {names.EXCHANGE}.*"
            )
            self._open_channel()
            self._consume()
            return
        self._consume_queue(queue, CANARY_PREFETCH, CANARY_QUEUE)

    def _consume_queue(self, queue: str, prefetch: int, shown: str | None = None) -> None:
        def on_message(message: Any) -> None:
            body = message.body
            if isinstance(body, str):  # py-amqp decodes on request only; this is for its empty body, which is a str
                body = body.encode()
            self._received += 1
            self._held_bytes += len(body)
            self._unacked.append((message.delivery_tag, len(body)))
            self._message_bytes += (len(body) - self._message_bytes) / min(self._received, 64)
            content_type, given_up = message.properties.get("content_type"), queue == names.DEAD_QUEUE
            # RabbitMQ checks the routing key against the user's rights, and not those of the headers CC and BCC, which lead
            # into queues as well: what was sent as usage stays usage.
            may_pay = queue in _WITH_PAYMENTS and message.delivery_info.get("routing_key") in _WAYS_TO_PAY
            self._arrived.append(
                Message(
                    body,
                    content_type,
                    shown or queue,
                    time.monotonic(),
                    given_up,
                    may_pay=may_pay,
                    properties=properties_of(message.properties),
                )
            )

        def on_cancel(_tag: str) -> None:
            self._lost = f"the broker cancelled the consumer of {queue}"

        # Per consumer: a limit over the whole channel does not apply to quorum queues.
        with self._reply_to(f"the consumer of {queue}"):
            self._channel.basic_qos(0, prefetch, a_global=False)
            self._tags[queue] = self._channel.basic_consume(queue, callback=on_message, on_cancel=on_cancel)

    def _cancel(self, queue: str) -> None:
        with self._reply_to(f"the end of the consumer of {queue}"):
            self._channel.basic_cancel(self._tags.pop(queue))

    def _drain(self) -> None:
        """Take what has arrived without waiting for more, up to about one batch."""
        connection, before = self._amqp, self._held_bytes
        transport = connection.transport
        with transport.having_timeout(0):
            while self._held_bytes - before < self._drain_bytes_max:
                try:
                    frame = transport.read_frame()
                except TimeoutError:
                    break
                connection.on_inbound_frame(frame)  # outside: what fails here must not pass for "nothing more is there"
        if self._held_bytes > 2 * self._held_bytes_max:
            # Larger messages than ever before met a prefetch made for small ones: give all back and take fewer.
            self._prefetch = max(1, self._prefetch // 16)
            raise SourceLostError(
                f"{self._held_bytes} bytes are too much to hold; reconnecting with a smaller prefetch"
            )

    def _adapt_prefetch(self) -> None:
        """Many small messages need thousands in flight, packed ones a few: what counts is their bytes."""
        wanted = int(self._held_bytes_max / 2 / max(self._message_bytes, 1.0) / len(self._usage_queues))
        wanted = max(PREFETCH_MIN, min(wanted, PREFETCH_MAX))
        if self._paused or self._received < PREFETCH_MIN or self._prefetch / 2 < wanted < self._prefetch * 2:
            return
        self._prefetch = wanted
        for queue in self._usage_queues:
            if queue in self._tags:
                self._cancel(queue)
                self._consume_queue(queue, wanted)

    def _check(self, *, look_only: bool = False) -> None:
        """Read the queues' depth; notice a consumer that is alive but gets nothing from a filled queue."""
        self._check_at = time.monotonic() + CHECK_SECONDS
        if due := self._dead.due():
            raise SourceLostError(f"reconnecting to try {', '.join(due)} again")
        for queue in {*self._usage_queues, names.PAYMENT_QUEUE, names.DEAD_QUEUE} - self.down:
            with self._reply_to(f"the look at {queue}"):
                self.depth[queue] = self._channel.queue_declare(queue, passive=True).message_count
        idle = any(self.depth.values()) and not self._unacked and self._received == self._received_at_check
        self._received_at_check = self._received
        if look_only or self._paused:
            return
        self._idle_checks = self._idle_checks + 1 if idle else 0
        if self._idle_checks >= 2:
            raise SourceLostError("the queue has messages and the broker sends none; reconnecting")
