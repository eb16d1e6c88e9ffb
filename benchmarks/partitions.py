"""Which width should the log's partitions have? Day, week and month, on a log of sixty days and on one of three years.

What a narrow partition could gain is that booking touches small indexes; what it costs is that a read by number, which
does not know the time, asks every partition. Both are measured, in turns.
"""

from __future__ import annotations

from typing import Any

from benchmarks.generate import Shape, fill, leave_rollups, roll_up
from benchmarks.load import Load
from benchmarks.reads import READS, time_read
from benchmarks.results import Result
from benchmarks.sides import check, ours
from benchmarks.stack import Stack, running_stack
from benchmarks.stats import in_turns
from taximeter_db import connect

WIDTHS = ("day", "week", "month")
DAYS = (60, 1_095)
_READS = ("page 1", "page deep", "page filtered", "by event id")


def run(form: str) -> Result:
    """All widths and lengths in turns; into the old log nothing is booked, which would be like the young one."""
    usages, events = {"short": (1_000_000, 100_000), "full": (6_000_000, 300_000), "smoke": (3_000, 500)}[form]
    result = Result(
        notes=[f"{usages:,} usages of 1,000 workspaces, a tenth of it where they are spread over three years"]
    )
    with running_stack() as stack:
        cases = [(width, days) for days in DAYS for width in WIDTHS]
        for width, days in cases:
            count = usages if days == DAYS[0] else usages // 10
            _generate(stack, f"{width}_{days}", Shape(usages=count, days=days, width=width))
        sides = {
            f"{width}, {days:,} days": (  # type: ignore[misc]
                lambda _, name=f"{width}_{days}", booked=events if days == DAYS[0] else 0: _measure(stack, name, booked)
            )
            for width, days in cases
        }
        result.sides = in_turns(1 if form == "smoke" else 3, sides)
        for width, days in cases:
            check(stack.postgres.url(f"{width}_{days}"))
    return result


def _generate(stack: Stack, name: str, shape: Shape) -> None:
    print(f"  {name}: generating {shape.usages:,} usages …", flush=True)
    stack.create(name)
    fill(stack.postgres.url(name), shape)
    roll_up(stack.postgres.url(name), Shape(usages=shape.usages, workspaces=2))
    leave_rollups(stack.postgres.url(name))


def _measure(stack: Stack, name: str, events: int) -> dict[str, Any]:
    measured = ours(stack, Load(events=events), onto=name) if events else {}
    with connect.connection(stack.postgres.url(name)) as conn:
        workspace_id = "ws-000001"
        row = conn.execute(
            "SELECT usage_count FROM taximeter.workspaces WHERE workspace_id = %s", [workspace_id]
        ).fetchone()
        assert row is not None
        for title in _READS:
            measured[f"{title}, ms"] = time_read(conn, READS[title], workspace_id, row[0])["p50_ms"]
    return measured
