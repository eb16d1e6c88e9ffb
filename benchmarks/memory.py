"""Does a worker's memory stay where it is? One worker, millions of events, looked at all the while.

After the warm-up (the first fifth) the resident memory is sampled; flat means that the second half of the samples lies no
higher than the first: growth is how much higher its median is.
"""

from __future__ import annotations

import json
import statistics
import time
from typing import Any

import psutil

from benchmarks.load import Load
from benchmarks.results import Result
from benchmarks.sides import booked, check, fresh, go, start_producers
from benchmarks.stack import Stack, running_stack
from taximeter_db import connect

EVENTS = {"short": 2_000_000, "full": 10_000_000, "smoke": 5_000}
SAMPLE_SECONDS = 0.5
SLICE_EVENTS = 100_000
"""The producer is faster than one worker: it runs ahead by two slices, or the queue, and its memory, would grow all the while."""


def run(form: str) -> Result:
    """One long run; its samples are the repeats."""
    with running_stack() as stack:
        measured = measure(stack, Load(events=EVENTS[form], slice_events=SLICE_EVENTS))
    result = Result(sides={"one worker": [measured]})
    result.take("memory", "one worker", "growth_percent")
    return result


def measure(stack: Stack, load: Load) -> dict[str, Any]:
    """Send the load through one worker; returns its memory in megabytes by millions of events."""
    environment = fresh(stack, load.workspaces)
    workers = stack.workers(1, environment)
    process = psutil.Process(workers[0].pid)
    (producer,) = start_producers(stack, environment, load, 0)
    samples: list[tuple[int, int]] = []
    with connect.connection(environment["TAXIMETER_DATABASE_URL"]) as conn:
        began = time.monotonic()
        go(producer)
        allowed = load.slice_events or load.events
        while not samples or samples[-1][0] < load.events:
            samples.append((booked(conn), process.memory_info().rss))
            while allowed < min(load.events, samples[-1][0] + 2 * load.slice_events):
                go(producer)
                allowed += load.slice_events
            time.sleep(SAMPLE_SECONDS if load.events > 10_000 else 0.02)
        seconds = time.monotonic() - began
        assert producer.stdout is not None
        json.loads(producer.stdout.readline())
    check(environment["TAXIMETER_DATABASE_URL"], load.events)
    stack.end(producer, *workers)
    stack.drop(environment)
    return {
        "events": load.events,
        "events_per_second": load.events / seconds,
        "growth_percent": growth_percent(samples, load.events),
        "samples": [[count / 1e6, rss / 2**20] for count, rss in samples[:: max(1, len(samples) // 200)]],
    }


def growth_percent(samples: list[tuple[int, int]], events: int) -> float:
    """From (events booked, bytes resident) pairs after the first fifth; 0 where there are too few to say."""
    warm = [rss for count, rss in samples if count >= events / 5]
    first, second = warm[: len(warm) // 2], warm[len(warm) // 2 :]
    if not first:
        return 0.0
    return 100 * (statistics.median(second) / statistics.median(first) - 1)
