"""Valkey and Redis: messages from plain lists, kept in a processing list until they are booked.

kombu's own Redis transport is not used (docs/decisions/0021): a message costs it a millisecond, it takes minutes to deliver
again what a killed worker had, and a list item that is not its envelope stops it. Here a consumer moves messages to a list
of its own in one atomic step, and any consumer gives back the list of one whose sign of life has run out.

Keys: see take.lua. All of this promises what Redis promises: with its default ``appendfsync everysec`` a crash of the
*server* can lose the last second.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any

import kombu as kombu_untyped
import redis
import structlog

from taximeter import names
from taximeter.brokers.tls import explained
from taximeter.redis_connection import no_retry
from taximeter_worker.consume.brokers.kombu_envelope import unwrap
from taximeter_worker.consume.brokers.list_waiter import ListWaiter
from taximeter_worker.consume.brokers.source import CANARY_QUEUE, Message
from taximeter_worker.consume.brokers.waker import Waker, wait_readable
from taximeter_worker.errors import SourceLostError
from taximeter_worker.settings import Settings

log = structlog.get_logger(__name__)

UNSHARDED_QUEUES = (names.USAGE_QUEUE, names.PAYMENT_QUEUE)
ALIVE_MILLISECONDS = 15_000
"""A consumer that was silent for this long is dead, and what it had taken goes back."""
BEAT_SECONDS = 3.0
DEPTH_SECONDS = 10.0
IO_TIMEOUT_SECONDS = 5.0
FULL_SECONDS = 0.5
"""How often a queue is looked at while the server's memory is so full that it refuses to wait."""
EVEN_WHEN_FULL = "#!lua flags=allow-oom\n"
TAKE_MESSAGES_MAX = 1000
HELD_MESSAGES_MAX = 10_000


def alive_key(consumer: str) -> str:
    """The key that is there as long as a consumer lives."""
    return f"{names.CONSUMER_PREFIX}{consumer}"


def _lua(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


class RedisSource:
    """See ``Source``."""

    def __init__(self, settings: Settings, canary_key: str | None = None) -> None:
        self.generation = 0
        self.depth: dict[str, int] = {}
        self.down: frozenset[str] = frozenset()
        self._url = settings.broker_redis_url
        self._kombu_url = settings.broker_kombu_url
        self._kombu_tls = settings.broker_kombu_tls
        self._producers = settings.producer_keys
        self._bytes_max = settings.batch_bytes_max
        self._held_bytes_max = settings.held_bytes_max
        canaries = () if canary_key is None else (names.queue_of(canary_key),)
        # Payments last: they are read after the others in each turn.
        self._queues = (*settings.usage_queues, *canaries, names.PAYMENT_QUEUE)
        self._canary_queues = canaries
        self._bound_keys = (
            *names.usage_routing_keys(settings.shards),
            names.USAGE_ROUTING_KEY,
            names.PAYMENT_ROUTING_KEY,
        )
        self._first = 0  # whose turn it is: a full queue must not keep the others from being read
        self._waker = Waker()
        self._client: redis.Redis | None = None
        self._waiters: list[ListWaiter] = []
        self._id = ""
        self._unacked: deque[tuple[int, int]] = deque()  # index of the queue, bytes
        self._held_bytes = 0
        self._paused = False
        self._beat_at = self._depth_at = self._full_until = 0.0

    # -- Source -----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect and register as a consumer under a new id; what an earlier id of ours had taken goes back."""
        self._disconnect()
        self.generation += 1
        self._unacked, self._held_bytes, self._paused = deque(), 0, False
        with self._translated():
            client = self._client = redis.Redis.from_url(
                self._url,
                protocol=2,
                single_connection_client=True,
                socket_timeout=IO_TIMEOUT_SECONDS,
                socket_connect_timeout=IO_TIMEOUT_SECONDS,
                socket_keepalive=None if self._url.startswith("unix://") else True,
                # redis-py repeats commands ten times by default; a repeated take would take twice.
                retry=no_retry(),
            )
            self._register_scripts(client)
            if self._id:
                self._give_back(self._id, force=True)
            self._id = uuid.uuid4().hex
            note = f"{socket.gethostname()}:{os.getpid()} {','.join(self._queues)}"
            self._register(keys=[names.CONSUMERS, alive_key(self._id)], args=[self._id, ALIVE_MILLISECONDS, note])
            self._waiters = [ListWaiter(client, queue) for queue in self._queues]
            self._beat_at = time.monotonic() + BEAT_SECONDS
            self._reclaim_dead()
            self._look_at_depth()
            self._bind_for_kombu()

    def poll(self, timeout_seconds: float) -> list[Message]:
        """See ``Source``."""
        with self._translated():
            if time.monotonic() >= self._beat_at:
                self._beat()
            messages = self._take_messages()
            if messages:
                self._waker.clear()
                return messages
            readers: list[Any] = [self._waker]
            if time.monotonic() < self._full_until:
                timeout_seconds = min(timeout_seconds, FULL_SECONDS)
            elif self._room > 0:
                for waiter in self._waiters:
                    waiter.arm()
                readers += self._waiters
            ready = wait_readable(readers, timeout_seconds)
            self._waker.clear()
            for waiter in self._waiters:
                if waiter in ready and not waiter.disarm():
                    self._full_until = time.monotonic() + FULL_SECONDS
            return self._take_messages() if any(waiter in ready for waiter in self._waiters) else []

    def ack(self, count: int) -> None:
        """See ``Source``."""
        counts = [0] * len(self._queues)
        for _ in range(count):
            queue, size = self._unacked.popleft()
            counts[queue] += 1
            self._held_bytes -= size
        if count:
            with self._translated():
                lists = [self._processing_key(queue, self._id) for queue in self._queues]
                if not self._ack(keys=[names.CONSUMERS, *lists], args=[self._id, *counts]):
                    raise SourceLostError("silent for too long; another worker has taken over the messages")

    def pause(self) -> None:
        """See ``Source``."""
        self._paused = True

    def wake(self) -> None:
        """See ``Source``."""
        self._waker.wake()

    def close(self) -> None:
        """See ``Source``."""
        self._disconnect()
        self._waker.close()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _disconnect(self) -> None:
        client = self._client
        if client is None:
            return
        with contextlib.suppress(redis.RedisError, OSError):
            self._give_back(self._id, force=True)
        self._client = None
        for waiter in self._waiters:
            with contextlib.suppress(redis.RedisError, OSError):
                waiter.close()
        self._waiters = []
        with contextlib.suppress(redis.RedisError, OSError):
            client.close()

    def _register_scripts(self, client: redis.Redis) -> None:
        # They move and remove, and nothing else makes room: refused like what brings more, a full queue would stay full.
        start = EVEN_WHEN_FULL
        try:
            client.eval(f"{start}return 1", 0)
        except redis.ResponseError:
            start = ""  # Redis before 7 knows no such flag
        scripts = [
            client.register_script(start + _lua(f"{name}.lua")) for name in ("register", "take", "ack", "reclaim")
        ]
        self._register, self._take, self._ack, self._reclaim = scripts

    def _bind_for_kombu(self) -> None:
        """Write down where the exchange leads, in the way kombu does: its producers drop what they find no binding for."""
        kombu: Any = kombu_untyped
        exchange = kombu.Exchange(names.EXCHANGE, "topic")
        try:
            with kombu.Connection(self._kombu_url, ssl=self._kombu_tls) as connection:
                for key in dict.fromkeys(self._bound_keys):
                    kombu.Queue(names.queue_of(key), exchange, routing_key=key).bind(
                        connection.default_channel
                    ).declare()
        except redis.OutOfMemoryError as error:
            log.warning(
                "broker_full", why=str(error), hint="what is in it is booked; nothing more can come before that"
            )
        except kombu.exceptions.OperationalError as error:
            raise SourceLostError(f"{type(error).__name__}: {error}") from error

    @property
    def _connected(self) -> Any:
        if self._client is None:
            raise SourceLostError("not connected")
        return self._client

    @property
    def _room(self) -> int:
        """Bytes that may still be taken."""
        if self._paused or len(self._unacked) >= HELD_MESSAGES_MAX:
            return 0
        return min(self._bytes_max, self._held_bytes_max - self._held_bytes)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (redis.RedisError, OSError, AttributeError) as error:
            # AttributeError: redis-py's connection lost its socket under our hands.
            told = explained(error) if self._url.startswith("rediss://") else error
            raise SourceLostError(f"{type(error).__name__}: {told}") from error

    @staticmethod
    def _processing_key(queue: str, consumer: str) -> str:
        return f"{queue}:processing:{consumer}"

    def _keys(self, consumer: str, queues: Sequence[str]) -> list[str]:
        pairs = [(queue, self._processing_key(queue, consumer)) for queue in queues]
        return [names.CONSUMERS, alive_key(consumer), *(key for pair in pairs for key in pair)]

    def _take_messages(self) -> list[Message]:
        if self._room <= 0:
            return []
        return self._call_take(TAKE_MESSAGES_MAX, self._room)

    def _call_take(self, messages_max: int, bytes_max: int) -> list[Message]:
        shards = len(self._queues) - 1
        self._first = (self._first + 1) % shards
        order = (*range(self._first, shards), *range(self._first), shards)
        keys = self._keys(self._id, [self._queues[index] for index in order])
        taken = self._take(keys=keys, args=[self._id, ALIVE_MILLISECONDS, messages_max, bytes_max])
        if taken is None:
            raise SourceLostError("silent for too long; another worker has taken over the messages")
        now = time.monotonic()
        messages = []
        for index, items in zip(order, taken, strict=True):
            for item in items:
                self._unacked.append((index, len(item)))
                self._held_bytes += len(item)
                queue = self._queues[index]
                checked = self._producers.check(item, queue)
                body, content_type, properties = unwrap(checked.body)
                if checked.key_id is not None:
                    properties = {**(properties or {}), "producer_key": checked.key_id}
                messages.append(
                    Message(
                        body,
                        content_type,
                        CANARY_QUEUE if queue in self._canary_queues else queue,
                        now,
                        distrusted=checked.distrusted,
                        may_pay=queue == names.PAYMENT_QUEUE,
                        properties=properties,
                    )
                )
        return messages

    def _beat(self) -> None:
        """Prove life even while nothing can be taken, and look after those that cannot any more."""
        self._beat_at = time.monotonic() + BEAT_SECONDS
        self._call_take(0, 0)
        self._reclaim_dead()
        if time.monotonic() >= self._depth_at:
            self._look_at_depth()

    def _give_back(self, consumer: str, *, force: bool) -> int:
        queues = self._queues
        if consumer != self._id:
            # As it noted them; without a note it is one of an earlier version.
            note = (self._connected.hget(names.CONSUMERS, consumer) or b"").decode()
            queues = tuple(filter(None, note.partition(" ")[2].split(","))) or UNSHARDED_QUEUES
        given_back = int(self._reclaim(keys=self._keys(consumer, queues), args=[consumer, "1" if force else "0"]))
        canaries = [queue for queue in queues if queue.startswith(f"{CANARY_QUEUE}.")]
        if canaries and given_back >= 0:
            self._connected.delete(*canaries)  # nobody else takes them
        return given_back

    def _reclaim_dead(self) -> None:
        client = self._connected
        consumers = [raw.decode() for raw in client.hkeys(names.CONSUMERS) if raw.decode() != self._id]
        for consumer in consumers:
            if not client.exists(alive_key(consumer)):
                given_back = self._give_back(consumer, force=False)
                if given_back > 0:
                    log.warning("messages_reclaimed", messages=given_back, consumer=consumer)

    def _look_at_depth(self) -> None:
        client = self._connected
        self._depth_at = time.monotonic() + DEPTH_SECONDS
        for queue in self._queues:
            if queue not in self._canary_queues:
                self.depth[queue] = int(client.llen(queue))
