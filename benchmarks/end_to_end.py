"""From record() to booked and flagged, in turns with what it is compared to, on the same servers."""

from __future__ import annotations

from typing import Any

from benchmarks import copying
from benchmarks.dramatiq_side import dramatiq
from benchmarks.floor import floor
from benchmarks.load import Load
from benchmarks.results import Result
from benchmarks.sides import ours
from benchmarks.stack import running_stack
from benchmarks.stats import in_turns

# Events of each side: short, full, and to see that it works.
SIZES = {
    "floor": (1_500, 5_000, 20),
    "narrow": (300_000, 1_000_000, 2_000),
    "wide": (80_000, 300_000, 1_000),
    "hot": (300_000, 1_000_000, 2_000),
    "uniform": (150_000, 500_000, 2_000),
    "foreign": (20_000, 60_000, 300),
    "dramatiq": (200_000, 1_000_000, 2_000),
    "copy": (300_000, 1_000_000, 2_000),
}
FOREIGN_PRODUCERS = 3


def run(form: str) -> Result:
    """All sides in turns, three times."""
    count = {side: sizes[("short", "full", "smoke").index(form)] for side, sizes in SIZES.items()}
    narrow = Load(events=count["narrow"])
    with running_stack() as stack:
        rows = copying.booked_rows(stack, Load(events=count["copy"]))
        batch = [2_000.0]

        def narrow_side(_: int) -> dict[str, Any]:
            measured = ours(stack, narrow)
            batch[0] = measured["batch_events"]
            return measured

        sides = in_turns(
            1 if form == "smoke" else 3,
            {
                "floor": lambda _: floor(stack, Load(events=count["floor"])),
                "floor, confirmed": lambda _: floor(stack, Load(events=count["floor"]), safe=True),
                "narrow": narrow_side,
                "copy": lambda _: copying.straight(stack, narrow, rows, batch[0]),
                "copy, two writers": lambda _: copying.straight(stack, narrow, rows, batch[0], writers=2),
                "dramatiq": lambda _: dramatiq(stack, Load(events=count["dramatiq"])),
                "two shards": lambda _: ours(stack, narrow, shards=2),
                "hot": lambda _: ours(stack, Load(events=count["hot"], spread="hot")),
                "uniform": lambda _: ours(
                    stack,
                    Load(events=count["uniform"], workspaces=100 * min(1_000, count["uniform"]), spread="uniform"),
                ),
                "wide": lambda _: ours(stack, Load(events=count["wide"], payload_bytes=1_800), encrypted=True),
                "wide, not encrypted": lambda _: ours(stack, Load(events=count["wide"], payload_bytes=1_800)),
                "foreign": lambda _: ours(stack, Load(events=count["foreign"]), foreign=FOREIGN_PRODUCERS),
            },
        )
    result = Result(sides=sides)
    for above, below, figure in (
        ("narrow", "floor", "narrow/floor"),
        ("narrow", "copy", "narrow/copy"),
        ("narrow", "dramatiq", "narrow/dramatiq"),
        ("wide", "narrow", "wide/narrow"),
        ("hot", "narrow", "hot/zipf"),
        ("uniform", "narrow", "uniform/zipf"),
        ("foreign", "floor", "foreign/floor"),
    ):
        result.compare(figure, above, below)
    return result
