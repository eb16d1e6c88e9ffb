"""How long after its publication does a usage that empties a balance switch enabled() off in another process?

One event a message, from a plain AMQP client, at a steady rate; every event takes a workspace of its own below its
minimum. A spinning check sees the flip as soon as it is there.
"""

from __future__ import annotations

import json
import statistics
import threading
import time
import uuid
from collections import deque
from typing import Any

import kombu

from benchmarks.stack import Stack, running_stack
from taximeter import Meter, names
from taximeter_db import connect, ledger

PAID = 1_000_000_000  # picodollars; each event costs 1 USD


def _payments(count: int) -> list[ledger.Payment]:
    now = time.time_ns() // 1000
    return [
        ledger.Payment(f"flip-{n:06d}", "start", b"0" * 16, "top_up", PAID, None, None, now, b"{}")
        for n in range(count)
    ]


def _publish(url: str, count: int, per_second: float, published: deque[tuple[str, float]]) -> None:
    with kombu.Connection(url) as connection, connection.channel() as channel:
        start = time.monotonic()
        for number in range(count):
            delay = start + number / per_second - time.monotonic()
            if delay > 0:
                time.sleep(delay)
            workspace_id = f"flip-{number:06d}"
            event = {
                "specversion": "1.0",
                "id": str(uuid.uuid4()),
                "source": "/benchmarks/flip",
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
            published.append((workspace_id, time.monotonic()))
            channel.basic_publish(message, exchange=names.EXCHANGE, routing_key=names.USAGE_ROUTING_KEY)


def measure(stack: Stack, name: str, per_second: float, count: int) -> dict[str, Any]:
    """Milliseconds from publication to enabled() false, over `count` flips."""
    environment = stack.fresh(name)
    workers = stack.workers(1, environment)
    with connect.booking_connection(environment["TAXIMETER_DATABASE_URL"]) as conn:
        ledger.book(conn, [], _payments(count))
    published: deque[tuple[str, float]] = deque()
    meter = Meter(redis_url=environment["TAXIMETER_REDIS_URL"])
    for number in range(count):  # every answer is in the process before the first event
        assert meter.enabled(f"flip-{number:06d}")
    sender = threading.Thread(target=_publish, args=(environment["TAXIMETER_BROKER_URL"], count, per_second, published))
    sender.start()
    waiting: list[tuple[str, float]] = []
    milliseconds: list[float] = []
    deadline = time.monotonic() + count / per_second + 60
    while len(milliseconds) < count and time.monotonic() < deadline:
        while published:
            waiting.append(published.popleft())
        still = []
        for workspace_id, sent in waiting:
            if meter.enabled(workspace_id):
                still.append((workspace_id, sent))
            else:
                milliseconds.append((time.monotonic() - sent) * 1000)
        waiting = still
        time.sleep(0.0002)
    sender.join()
    meter.close()
    stack.end(*workers)
    assert len(milliseconds) == count, f"{count - len(milliseconds)} flips were never seen"
    cuts = statistics.quantiles(milliseconds, n=100)
    return {
        "per_second": per_second,
        "flips": count,
        "p50_ms": cuts[49],
        "p99_ms": cuts[98],
        "max_ms": max(milliseconds),
    }


def run(*, full: bool) -> dict[str, Any]:
    seconds = 30 if full else 8
    with running_stack() as stack:
        print("  flips at 500/s", flush=True)
        slow = measure(stack, "flip_500", 500, 500 * seconds)
        print("  flips at 2,000/s", flush=True)
        fast = measure(stack, "flip_2000", 2_000, 2_000 * seconds)
    return {"results": [slow, fast]}
