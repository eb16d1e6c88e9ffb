"""Publishing to a Redis or Valkey broker: `LPUSH` of the bare CloudEvents batch.

The weaker promise of this broker: a confirmed event is as durable as the server's own persistence settings.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from taximeter import names
from taximeter.signing import ProducerKey
from taximeter.tls import explained
from taximeter.transports import Settled

TIMEOUT_SECONDS: Final = 5.0
_inherited: list[object] = []


class ValkeyTransport:
    """A connection whose every reply is the confirm."""

    def __init__(self, url: str, key: ProducerKey | None = None) -> None:
        self._key = key
        self._encrypted = url.startswith("rediss://")
        self._pool = redis.ConnectionPool.from_url(
            url,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        self._connection: Any = None
        self._tag = 0
        self._settled: list[Settled] = []

    def connect(self) -> None:
        """Connect; also authenticates."""
        self._connection = self._pool.make_connection()
        try:
            self._connection.connect()
        except Exception as error:
            raise (explained(error) if self._encrypted else error) from error

    def publish(self, routing_key: str, body: bytes) -> int:
        """Push one batch message and wait for the reply."""
        queue = names.queue_of(routing_key)
        self._connection.send_command("LPUSH", queue, self._key.sign(queue, body) if self._key else body)
        self._connection.read_response()
        self._tag += 1
        self._settled.append(Settled(self._tag, None))
        return self._tag

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
