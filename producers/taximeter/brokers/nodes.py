"""The nodes of a RabbitMQ cluster, as one address names them."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from taximeter.addresses import NODE_SEPARATOR
from taximeter.brokers.tls import split_tls


class Node(NamedTuple):
    """One node: its address without TLS files, and py-amqp's TLS options, None where it is not encrypted."""

    url: str
    tls: dict[str, Any] | None

    def __repr__(self) -> str:
        return f"Node({urlsplit(self.url).hostname!r})"


def split_nodes(url: str) -> deque[Node]:
    """Take an address apart: ``amqp://…;amqp://…``. TLS files are named in the last node's address, for all of them."""
    rest, tls = split_tls(url)
    nodes: deque[Node] = deque()
    for node in rest.split(NODE_SEPARATOR):
        # py-amqp verifies no name unless it is given one.
        nodes.append(Node(node, None if tls is None else {**tls, "server_hostname": urlsplit(node).hostname}))
    return nodes
