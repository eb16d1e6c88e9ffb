"""Usage events at a steady rate, one a message, from a plain AMQP client."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import kombu

from taximeter import names


def publish(
    url: str, count: int, per_second: float, workspace_of: Callable[[int], str], sent: Callable[[str, float], Any]
) -> None:
    """Publish `count` events of 1 USD each; `sent` is told each workspace and the monotonic clock just before."""
    with kombu.Connection(url) as connection, connection.channel() as channel:
        start = time.monotonic()
        for number in range(count):
            delay = start + number / per_second - time.monotonic()
            if delay > 0:
                time.sleep(delay)
            workspace_id = workspace_of(number)
            event = {
                "specversion": "1.0",
                "id": str(uuid.uuid4()),
                "source": "/benchmarks/pacing",
                "type": names.USAGE_TYPE,
                "subject": workspace_id,
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "data": {
                    "tool": "chat",
                    "provider": "openai",
                    "model": "gpt-4o",
                    "quantities": {"input_tokens": 0, "output_tokens": 100_000},
                },
            }
            message = channel.prepare_message(
                json.dumps(event).encode(),
                content_type=names.CONTENT_TYPE_EVENT,
                content_encoding="utf-8",
                properties={"delivery_mode": 2},
            )
            sent(workspace_id, time.monotonic())
            channel.basic_publish(message, exchange=names.EXCHANGE, routing_key=names.USAGE_ROUTING_KEY)
