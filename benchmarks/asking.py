"""enabled() in process, against asking Redis each time with GET, in turns within one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import redis

from benchmarks.load import workspace_id
from benchmarks.results import Result
from benchmarks.sides import fresh
from benchmarks.stack import running_stack
from benchmarks.stats import in_turns
from taximeter import Meter

WORKSPACES = 1_000


def run(form: str) -> Result:
    """Five turns."""
    calls, gets = {"short": (2_000_000, 20_000), "full": (10_000_000, 100_000), "smoke": (2_000, 200)}[form]
    names = [workspace_id(number) for number in range(WORKSPACES)]
    with running_stack() as stack:
        environment = fresh(stack, WORKSPACES)
        stack.warm_flags(environment)
        url = environment["TAXIMETER_REDIS_URL"]
        with Meter(redis_url=url) as meter, redis.Redis.from_url(url) as client:
            for name in names:
                assert meter.enabled(name)
                client.set(f"plain:{name}", "1")
            keys = [f"plain:{name}" for name in names]
            sides = in_turns(
                5,
                {
                    "enabled()": lambda _: _time(meter.enabled, names, calls),
                    "GET": lambda _: _time(client.get, keys, gets),
                },
            )
    result = Result(sides=sides)
    # The time of a call, so the other way round.
    result.compare("enabled/get", "GET", "enabled()", "ns_per_call")
    return result


def _time(function: Callable[[str], Any], arguments: list[str], calls: int) -> dict[str, Any]:
    rounds = max(1, calls // len(arguments))
    start, cpu = time.perf_counter_ns(), time.process_time_ns()
    for _ in range(rounds):
        for argument in arguments:
            function(argument)
    count = rounds * len(arguments)
    return {
        "ns_per_call": (time.perf_counter_ns() - start) / count,
        "cpu_ns_per_call": (time.process_time_ns() - cpu) / count,
    }
