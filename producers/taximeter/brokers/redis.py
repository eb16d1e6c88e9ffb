"""Publishing to a Redis or Valkey broker: `LPUSH` of the bare CloudEvents batch.

The weaker promise of this broker: a confirmed event is as durable as the server's own persistence settings.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any, Final

from taximeter import names
from taximeter.addresses import redis_url
from taximeter.brokers.signing import ProducerKey
from taximeter.brokers.tls import explained
from taximeter.brokers.transport import MessageTooLargeError, Settled
from taximeter.redis_connection import new_connection

TIMEOUT_SECONDS: Final = 5.0
BULK_BYTES_SAFE: Final = 1024 * 1024
"""No server can be told to take less."""
REFUSAL_SECONDS: Final = 0.25
"""How long to wait for a refusal, once a connection for each larger size."""
_inherited: list[object] = []


class RedisTransport:
    """A connection whose every reply is the confirm."""

    def __init__(self, url: str, variable: str, key: ProducerKey | None = None) -> None:
        self._key = key
        self._encrypted = redis_url(url).startswith("rediss://")
        self._unconnected = new_connection(url, variable, timeout_seconds=TIMEOUT_SECONDS, protocol=2)
        self._connection: Any = None
        self._tag = 0
        self._taken_bytes = BULK_BYTES_SAFE
        self._settled: list[Settled] = []

    def connect(self) -> None:
        """Connect; also authenticates."""
        self._connection = self._unconnected
        try:
            self._connection.connect()
        except Exception as error:
            raise (explained(error) if self._encrypted else error) from error

    def publish(self, routing_key: str, body: bytes) -> int:
        """Push one batch message and wait for the reply."""
        queue = names.queue_of(routing_key)
        item = self._key.sign(queue, body) if self._key else body
        if len(item) <= self._taken_bytes:
            self._connection.send_command("LPUSH", queue, item)
        else:
            self._offer(queue.encode(), item)
        self._connection.read_response()
        self._taken_bytes = max(self._taken_bytes, len(item))
        self._tag += 1
        self._settled.append(Settled(self._tag, None))
        return self._tag

    def _offer(self, queue: bytes, item: bytes) -> None:
        """Say how large the item is before it is sent.

        A server whose ``proto-max-bulk-len`` is less answers that at once and hangs up. If the item were in transit
        already, the answer would be lost with the connection, and a message that can never go would look like an outage.
        """
        from redis.exceptions import ResponseError

        connection = self._connection
        connection.send_packed_command([b"*3\r\n$5\r\nLPUSH\r\n$%d\r\n%s\r\n$%d\r\n" % (len(queue), queue, len(item))])
        if connection.can_read(REFUSAL_SECONDS):
            try:
                connection.read_response()
            except ResponseError as error:
                if "bulk length" in str(error):
                    raise MessageTooLargeError(str(error)) from error
                raise
        connection.send_packed_command([item, b"\r\n"], check_health=False)

    def settle(self, timeout_seconds: float) -> list[Settled]:
        """Return the verdicts that `publish` got; there is never anything to wait for."""
        del timeout_seconds
        settled, self._settled = self._settled, []
        return settled

    def drop(self) -> None:
        """Close the socket."""
        self.interrupt()
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.disconnect()

    def interrupt(self) -> None:
        """Shut the socket down, which wakes whoever waits on it."""
        sock = getattr(self._connection, "_sock", None)
        if isinstance(sock, socket.socket):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def abandon(self) -> None:
        """Close the child's copy of the descriptor only."""
        sock = getattr(self._connection, "_sock", None)
        if isinstance(sock, socket.socket):
            with contextlib.suppress(OSError):
                sock.close()
        _inherited.append(self)
