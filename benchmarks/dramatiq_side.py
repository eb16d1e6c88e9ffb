"""Dramatiq, timed: the same producer, queue and messages, consumed by `benchmarks.dramatiq_actors`."""

from __future__ import annotations

from typing import Any

import kombu

from benchmarks.load import Load
from benchmarks.sides import check, fresh, mean_batch, timed
from benchmarks.stack import Stack
from taximeter import names
from taximeter_db import connect

THREADS = 2
"""Of a worker process. Four and eight were slower."""


def dramatiq(stack: Stack, load: Load, processes: int = 2) -> dict[str, Any]:
    """Send the load and wait until it is booked and flagged."""
    environment = fresh(stack, load.workspaces)
    declare(environment["TAXIMETER_BROKER_URL"])
    stack.warm_flags(environment)
    workers = stack.spawn(
        ["-m", "dramatiq", "benchmarks.dramatiq_actors", "-p", str(processes), "-t", str(THREADS), "--skip-logging"],
        environment | {"dramatiq_queue_prefetch": "16"},
        "dramatiq.log",
    )
    stack.wait_for_consumers(environment, processes)
    result = timed(stack, environment, load, 0, [workers])
    stack.end(workers)
    url = environment["TAXIMETER_DATABASE_URL"]
    check(url, load.events)
    with connect.connection(url) as conn:
        result["batch_events"] = mean_batch(conn)
    stack.drop(environment)
    return result


def declare(url: str) -> None:
    """Exchange and queue, as our worker declares them."""
    with kombu.Connection(url) as connection, connection.channel() as channel:
        exchange = kombu.Exchange(names.EXCHANGE, "topic", durable=True)
        kombu.Queue(names.USAGE_QUEUE, exchange, names.USAGE_ROUTING_KEY, queue_arguments=names.QUEUE_ARGUMENTS).bind(
            channel
        ).declare()
