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
DEAD_QUEUE_ARGUMENTS: Final[dict[str, str | int]] = {
    "x-queue-type": "quorum",
    # What RabbitMQ gives up on here is gone. RabbitMQ 4 does so after 20 deliveries unless it is told otherwise.
    "x-delivery-limit": 1_000_000_000,
}

TASK_QUEUE: Final = "taximeter.tasks"
"""Where the workers' periodic tasks come through on Redis; on RabbitMQ up to 0.1.0, as a classic queue."""
TASK_QUORUM_QUEUE: Final = "taximeter.tasks.quorum"
"""Where they come through on RabbitMQ. A queue cannot change its type, so it has a name of its own."""
TASK_QUEUE_ARGUMENTS: Final[dict[str, str | int]] = {"x-queue-type": "quorum", "x-delivery-limit": 1000}

CONTENT_TYPE_EVENT: Final = "application/cloudevents+json"
"""One CloudEvent in JSON structured mode."""
CONTENT_TYPE_BATCH: Final = "application/cloudevents-batch+json"
"""A JSON array of CloudEvents."""

USAGE_TYPE: Final = "taximeter.usage.v1"
PAYMENT_TYPE: Final = "taximeter.payment.v1"

FLAG_PREFIX: Final = "taximeter:flag:"
BALANCE_PREFIX: Final = "taximeter:balance:"
FLAGS_PREFIX: Final = "taximeter:flags:"
"""What begins with it tells of the flags as a whole."""
FLAGS_READY: Final = f"{FLAGS_PREFIX}ready"
"""Present while the flag cache is warm: a missing flag then means a new workspace, which is enabled.

Readers ask only whether it is there; its value is for the workers."""
CONSUMERS: Final = "taximeter:consumers"
"""Where Redis is the broker: the hash of the consumers that may take and acknowledge messages."""
CONSUMER_PREFIX: Final = "taximeter:consumer:"
"""What precedes a consumer's id in the key that is there as long as it lives."""
CLUSTER_POSITION: Final = "taximeter:place"
"""Where the database stood when a worker last looked after the flags."""

HOLDS_PREFIX: Final = "taximeter:holds:"

PRICES: Final = "taximeter:prices:1"
"""The price book as workers publish it, in the form `taximeter.pricing.published` describes; 1 is the form's number."""


def flag_key(workspace_id: str) -> str:
    """Redis key of a workspace's flag hash. The braces are a Redis Cluster hash tag."""
    return f"{FLAG_PREFIX}{{{workspace_id}}}"


def balance_key(workspace_id: str) -> str:
    """Redis key of a workspace's balance hash; in the same cluster slot as its flag."""
    return f"{BALANCE_PREFIX}{{{workspace_id}}}"


def holds_key(workspace_id: str) -> str:
    """Redis key of the hash of what a workspace's open holds hold; in the same cluster slot as its flag."""
    return f"{HOLDS_PREFIX}{{{workspace_id}}}"


def holds_due_key(workspace_id: str) -> str:
    """Redis key of the sorted set of when these holds expire."""
    return f"{HOLDS_PREFIX}due:{{{workspace_id}}}"


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
    "reasoning_tokens": "output_tokens",
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
    "reasoning_tokens",
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

PAYMENT_KINDS: Final = ("top_up", "promo", "refund", "clawback", "reinstated", "expiry", "adjustment")
NEGATIVE_PAYMENT_KINDS: Final = ("clawback", "expiry")
"""These take from a balance; an adjustment does either, all others add to it."""
FOLLOWING_PAYMENT_KINDS: Final = ("clawback", "reinstated", "expiry")
"""These concern another payment, which ``transaction.payment_id`` names."""
