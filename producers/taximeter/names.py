"""The names on the wire: broker, Redis keys, event types and standard units.

Everything here is part of the public contract. The worker imports this module too, so that both sides
cannot drift apart.
"""

from __future__ import annotations

import zlib
from typing import Final

EXCHANGE: Final = "taximeter"
"""Durable topic exchange that producers publish to."""

USAGE_ROUTING_KEY: Final = "usage"
PAYMENT_ROUTING_KEY: Final = "payment"
USAGE_QUEUE: Final = "taximeter.usage"
PAYMENT_QUEUE: Final = "taximeter.payment"
DEAD_EXCHANGE: Final = "taximeter.dead"
"""Fanout exchange for messages that RabbitMQ gave up on (delivery limit)."""
DEAD_QUEUE: Final = "taximeter.dead"

SHARDS_MAX: Final = 256


def usage_routing_key(workspace_id: str, shards: int) -> str:
    """Routing key of a workspace's usages: ``usage``, or ``usage.<n>`` where usages are split over ``shards`` queues.

    ``n`` is the CRC-32 of the id modulo ``shards``, so any language can tell it. ``usage`` itself is always served.
    """
    if shards == 1:
        return USAGE_ROUTING_KEY
    return f"{USAGE_ROUTING_KEY}.{zlib.crc32(workspace_id.encode()) % shards}"


def usage_routing_keys(shards: int) -> tuple[str, ...]:
    """Every key that `usage_routing_key` can give."""
    if shards == 1:
        return (USAGE_ROUTING_KEY,)
    return tuple(f"{USAGE_ROUTING_KEY}.{shard}" for shard in range(shards))


def queue_of(routing_key: str) -> str:
    """The queue that a routing key leads to: ``taximeter.usage``, ``taximeter.usage.3``, ``taximeter.payment``."""
    return f"{EXCHANGE}.{routing_key}"


QUEUE_ARGUMENTS: Final[dict[str, str | int]] = {
    "x-queue-type": "quorum",
    "x-dead-letter-exchange": DEAD_EXCHANGE,
    # Dead-lettering that waits for a confirm, so that a message is never between two queues; it needs reject-publish.
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
    # RabbitMQ 4 gives up after 20 deliveries by default; a worker that is killed again and again must not cost good messages.
    "x-delivery-limit": 1000,
}
"""Arguments of the usage and payment queues on RabbitMQ. Whoever declares them must declare them alike."""
DEAD_QUEUE_ARGUMENTS: Final[dict[str, str | int]] = {"x-queue-type": "quorum"}

CONTENT_TYPE_EVENT: Final = "application/cloudevents+json"
"""One CloudEvent in JSON structured mode."""
CONTENT_TYPE_BATCH: Final = "application/cloudevents-batch+json"
"""A JSON array of CloudEvents."""

USAGE_TYPE: Final = "taximeter.usage.v1"
PAYMENT_TYPE: Final = "taximeter.payment.v1"

FLAG_PREFIX: Final = "taximeter:flag:"
BALANCE_PREFIX: Final = "taximeter:balance:"
FLAGS_READY: Final = "taximeter:flags:ready"
"""Present while the flag cache is warm: a missing flag then means a new workspace, which is enabled."""


def flag_key(workspace_id: str) -> str:
    """Redis key of a workspace's flag hash. The braces are a Redis Cluster hash tag."""
    return f"{FLAG_PREFIX}{{{workspace_id}}}"


def balance_key(workspace_id: str) -> str:
    """Redis key of a workspace's balance hash; in the same cluster slot as its flag."""
    return f"{BALANCE_PREFIX}{{{workspace_id}}}"


STATUS_SUFFICIENT: Final = "sufficient"
STATUS_LOW: Final = "low"
STATUS_INSUFFICIENT: Final = "insufficient"

PARENT_UNITS: Final[dict[str, str]] = {
    "cached_input_tokens": "input_tokens",
    "cache_write_tokens": "input_tokens",
    "cache_write_1h_tokens": "cache_write_tokens",
    "input_audio_tokens": "input_tokens",
    "cached_input_audio_tokens": "input_audio_tokens",
    "input_image_tokens": "input_tokens",
    "output_audio_tokens": "output_tokens",
    "output_image_tokens": "output_tokens",
}
"""Where a sub-pool looks for its price when it has none of its own; followed until a price is found."""

STANDARD_UNITS: Final = (
    "requests",
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "input_audio_tokens",
    "cached_input_audio_tokens",
    "input_image_tokens",
    "output_audio_tokens",
    "output_image_tokens",
    "images",
    "seconds",
    "characters",
    "pages",
    "searches",
)

PAYMENT_KINDS: Final = ("top_up", "promo", "refund", "adjustment")

WORKSPACE_ID_MAX: Final = 128
WORKSPACE_ID_PATTERN: Final = r"[A-Za-z0-9._:\-]{1,128}"
EVENT_ID_MAX: Final = 255
"""Printable ASCII characters, at most this many."""
TOOL_MAX: Final = 128
EVENT_BYTES_MAX: Final = 1024 * 1024
"""Default limit of one event on the wire, in bytes."""
MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Default limit of one broker message, in bytes."""
