"""Publishing to RabbitMQ: persistent, mandatory, with pipelined publisher confirms.

Exchange and queues are declared by the worker, so a producer's account needs the right to write and no other.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any, Final

from amqp import Message
from amqp.exceptions import NotFound
from kombu.connection import Connection

from taximeter import names
from taximeter.tls import explained, split_tls
from taximeter.transports import Settled

CONNECT_TIMEOUT_SECONDS: Final = 5.0
WRITE_TIMEOUT_SECONDS: Final = 10.0
HEARTBEAT_SECONDS: Final = 30
_PERSISTENT: Final = 2
_inherited: list[object] = []


class RabbitTransport:
    """A connection with one channel in confirm mode."""

    def __init__(self, url: str) -> None:
        url, self._tls = split_tls(url)
        make: Any = Connection  # kombu ships no types
        self._settings = make(
            url,
            ssl=self._tls,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            heartbeat=HEARTBEAT_SECONDS,
            transport_options={"read_timeout": WRITE_TIMEOUT_SECONDS, "write_timeout": WRITE_TIMEOUT_SECONDS},
        )
        # RabbitMQ refuses a message that names another user than its connection's: so the name can be trusted.
        self._who = {"user_id": self._settings.userid} if self._settings.userid else {}
        self._connection: Any = None
        self._channel: Any = None
        self._tag = 0
        self._outstanding: dict[int, str | None] = {}
        self._settled: list[Settled] = []

    def connect(self) -> None:
        """Connect and switch publisher confirms on."""
        if self._tls is not None:
            # py-amqp verifies no name unless it is given one; an address may name several nodes.
            self._settings.ssl = {**self._tls, "server_hostname": self._settings.hostname}
        try:
            self._connection = self._settings.transport.establish_connection()
        except Exception as error:
            self._settings.maybe_switch_next()  # an address may name several nodes, separated by semicolons
            raise (error if self._tls is None else explained(error)) from error
        # The handshake's replies would otherwise be waited for without end.
        with self._connection.transport.having_timeout(CONNECT_TIMEOUT_SECONDS):
            channel = self._connection.channel()
            channel.confirm_select()
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)
        self._channel = channel

    def publish(self, routing_key: str, body: bytes) -> int:
        """Send one batch message; bounded by the write timeout."""
        self._tag += 1
        message = Message(
            body,
            content_type=names.CONTENT_TYPE_BATCH,
            delivery_mode=_PERSISTENT,
            # A return names no delivery tag: this does.
            message_id=str(self._tag),
            **self._who,
        )
        self._outstanding[self._tag] = None
        self._channel.basic_publish(message, exchange=names.EXCHANGE, routing_key=routing_key, mandatory=True)
        return self._tag

    def settle(self, timeout_seconds: float) -> list[Settled]:
        """Wait for confirms, returns and refusals."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            left = deadline - time.monotonic()
            try:
                self._connection.drain_events(timeout=left if left > 0 and not self._settled else 0)
            except (TimeoutError, BlockingIOError):
                break
            except NotFound as error:
                raise LookupError(f"no exchange {names.EXCHANGE!r}; has a worker ever been started?") from error
            if self._settled and left <= 0:
                break
        self._connection.heartbeat_tick()
        settled, self._settled = self._settled, []
        return settled

    def _on_ack(self, delivery_tag: int, multiple: bool) -> None:
        for tag in self._covered(delivery_tag, multiple):
            # An unroutable message is returned first and then confirmed all the same.
            self._settled.append(Settled(tag, self._outstanding.pop(tag)))

    def _on_nack(self, delivery_tag: int, multiple: bool) -> None:
        for tag in self._covered(delivery_tag, multiple):
            self._outstanding.pop(tag)
            self._settled.append(Settled(tag, "the broker refused the message"))

    def _on_return(self, error: Exception, exchange: str, routing_key: str, message: Any) -> None:
        del error
        tag = int(message.properties["message_id"])
        self._outstanding[tag] = (
            f"no queue takes exchange {exchange!r}, routing key {routing_key!r}; has a worker ever been started?"
        )

    def _covered(self, delivery_tag: int, multiple: bool) -> list[int]:
        if multiple:
            return [tag for tag in self._outstanding if tag <= delivery_tag]
        return [delivery_tag] if delivery_tag in self._outstanding else []

    def drop(self) -> None:
        """Close the socket. A polite close would wait for a broker that may be blocked or frozen."""
        self.interrupt()
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.collect()

    def interrupt(self) -> None:
        """Shut the socket down, which wakes whoever waits on it."""
        sock = self._socket()
        if sock is not None:
            with contextlib.suppress(OSError):
                # On the plain socket: TLS would first exchange farewells.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def abandon(self) -> None:
        """Close the child's copy of the descriptor only; a shutdown would reach the parent's connection."""
        sock = self._socket()
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()
        # Kept, so that no finalizer of the client library says goodbye in the parent's name.
        _inherited.append(self)

    def _socket(self) -> socket.socket | None:
        transport = getattr(self._connection, "_transport", None)
        found = getattr(transport, "sock", None)
        return found if isinstance(found, socket.socket) else None
