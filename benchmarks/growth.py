"""Does booking stay as fast when the log is large? A generated log against an empty one, and random ids against UUIDv7.

The large logs are written by `benchmarks.generate`, spread over sixty days in the ledger's own partitions; their generated part
bears no links of the hash chain, what is booked here does. Every side begins
right after a checkpoint, so each of them pays for its full pages.
"""

from __future__ import annotations

import time

import msgspec

from benchmarks.generate import Shape, fill, leave_rollups
from benchmarks.load import Load
from benchmarks.results import Result
from benchmarks.sides import check, ours
from benchmarks.stack import Stack, running_stack
from benchmarks.stats import in_turns

USAGES = {"short": 4_000_000, "full": 20_000_000, "smoke": 20_000}
EVENTS = {"short": 150_000, "full": 500_000, "smoke": 1_000}


def run(form: str) -> Result:
    """Three sides in turns; both large logs verify afterwards."""
    usages, events = USAGES[form], EVENTS[form]
    load = Load(events=events)
    result = Result(notes=[f"large: {usages:,} usages of 1,000 workspaces over 60 days"])
    with running_stack() as stack:
        for name, ids in (("large", "uuid7"), ("large_random", "random")):
            result.more[f"generated per second, {ids}"] = _generate(stack, name, Shape(usages=usages, ids=ids))
        random = msgspec.structs.replace(load, ids="random")
        result.sides = in_turns(
            1 if form == "smoke" else 3,
            {
                "empty": lambda _: ours(stack, load),
                "large": lambda _: ours(stack, load, onto="large"),
                "large, random ids": lambda _: ours(stack, random, onto="large_random"),
                "empty, random ids": lambda _: ours(stack, random),
            },
        )
        for name in ("large", "large_random"):
            began = time.monotonic()
            check(stack.postgres.url(name))
            result.more[f"verified per second, {name}"] = usages / (time.monotonic() - began)
    result.compare("large/empty", "large", "empty")
    result.compare("large/empty WAL", "large", "empty", "wal_bytes_per_event")
    result.compare("random/uuid7", "large, random ids", "large")
    return result


def _generate(stack: Stack, name: str, shape: Shape) -> float:
    print(f"  {name}: generating {shape.usages:,} usages …", flush=True)
    stack.create(name)
    began = time.monotonic()
    fill(stack.postgres.url(name), shape)
    leave_rollups(stack.postgres.url(name))
    return shape.usages / (time.monotonic() - began)
