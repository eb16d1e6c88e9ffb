"""Publishing to RabbitMQ: persistent, mandatory, with pipelined publisher confirms.

Exchange and queues are declared by the worker, so a producer's account needs the right to write and no other.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from amqp import Message
from amqp.exceptions import NotFound, PreconditionFailed
from kombu.connection import Connection

from taximeter import names
from taximeter.brokers.nodes import Node
from taximeter.brokers.tls import explained
from taximeter.brokers.transport import MessageTooLargeError, Settled

CONNECT_TIMEOUT_SECONDS: Final = 5.0
WRITE_TIMEOUT_SECONDS: Final = 10.0
HEARTBEAT_SECONDS: Final = 30
_PERSISTENT: Final = 2
_TOO_LARGE: Final = re.compile(r"message size \d+ is larger than (?:configured )?max size (\d+)")
_inherited: list[object] = []


class RabbitmqTransport:
    """A connection with one channel in confirm mode."""

    def __init__(self, nodes: deque[Node]) -> None:
        self._nodes = nodes
        self._connection: Any = None
        self._channel: Any = None
        self._properties: dict[str, Any] = {}
        self._tag = 0
        self._outstanding: dict[int, str | None] = {}
        self._settled: list[Settled] = []

    def connect(self) -> None:
        """Connect to the first node that answers, and switch publisher confirms on."""
        for left in reversed(range(len(self._nodes))):
            try:
                self._connect_to(self._nodes[0])
                break
            except Exception:
                self.drop()
                if not left:
                    raise

    def _connect_to(self, node: Node) -> None:
        make: Any = Connection  # kombu ships no types
        settings = make(
            node.url,
            ssl=node.tls,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            heartbeat=HEARTBEAT_SECONDS,
            transport_options={"read_timeout": WRITE_TIMEOUT_SECONDS, "write_timeout": WRITE_TIMEOUT_SECONDS},
        )
        # RabbitMQ refuses a message that names another user than its connection's: so the name can be trusted.
        self._properties = {"user_id": settings.userid} if settings.userid else {}
        try:
            self._connection = settings.transport.establish_connection()
        except Exception as error:
            raise (error if node.tls is None else explained(error)) from error
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
            **self._properties,
        )
        self._outstanding[self._tag] = None
        with _translated():  # py-amqp reads here too, and may find the refusal of an earlier message
            self._channel.basic_publish(message, exchange=names.EXCHANGE, routing_key=routing_key, mandatory=True)
        return self._tag

    def settle(self, timeout_seconds: float) -> list[Settled]:
        """Wait for confirms, returns and refusals."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            left = deadline - time.monotonic()
            try:
                with _translated():
                    self._connection.drain_events(timeout=left if left > 0 and not self._settled else 0)
            except (TimeoutError, BlockingIOError):
                break
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
            self._settled.append(Settled(tag, "the broker refused the message", refused=True))

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
        """Close the socket; the next connection begins with the next node.

        A polite close would wait for a broker that may be blocked or frozen.
        """
        self._nodes.rotate(-1)
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
        sock = getattr(transport, "sock", None)
        return sock if isinstance(sock, socket.socket) else None


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """RabbitMQ's reasons for closing the channel, in our words."""
    try:
        yield
    except NotFound as error:
        raise LookupError(f"no exchange {names.EXCHANGE!r}; has a worker ever been started?") from error
    except PreconditionFailed as error:
        refusal = _TOO_LARGE.search(str(error))
        if refusal is None:
            raise
        raise MessageTooLargeError(refusal[0], int(refusal[1])) from error
