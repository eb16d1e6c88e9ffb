"""kombu's connection to the broker, as the worker's booking and its tasks use it."""

from __future__ import annotations

from typing import Any

import amqp
from kombu.connection import Connection
from kombu.transport import pyamqp


class NodeTransport(pyamqp.Transport):
    """What py-amqp's transport lacks where RabbitMQ is a cluster."""

    # To be refused a message is to have lost the connection: kombu then makes another one and publishes again. RabbitMQ goes
    # on refusing over a channel that was opened before the queue had its new leader.
    connection_errors = (*pyamqp.Transport.connection_errors, amqp.exceptions.MessageNacked)
    recoverable_connection_errors = (
        *pyamqp.Transport.recoverable_connection_errors,
        amqp.exceptions.MessageNacked,
    )

    def establish_connection(self) -> Any:
        """Connect to the current node; with TLS, verify the name of that node and not the first one's."""
        client: Any = self.client
        name = client.hostname
        if isinstance(client.ssl, dict):
            client.ssl = {**client.ssl, "server_hostname": name}
        try:
            return super().establish_connection()  # type: ignore[no-untyped-call]
        finally:
            client.hostname = name  # kombu puts 127.0.0.1 in the place of localhost, and the next try would verify that


class EncryptedNodeTransport(NodeTransport, pyamqp.SSLTransport):
    """The same for ``amqps://``."""


_OURS = {pyamqp.Transport: NodeTransport, pyamqp.SSLTransport: EncryptedNodeTransport}


class BrokerConnection(Connection):
    """A connection to either kind of broker."""

    def get_transport_cls(self) -> Any:
        """The class that speaks to this kind of broker."""
        transport = super().get_transport_cls()  # type: ignore[no-untyped-call]
        return _OURS.get(transport, transport)
