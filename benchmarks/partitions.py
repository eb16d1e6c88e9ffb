"""Which width should the log's partitions have? Day, week and month, on a log of sixty days and on one of three years.

What a narrow partition could gain is that booking touches small indexes; what it costs is that a read by number, which
does not know the time, asks every partition. Both are measured, in turns.
"""

from __future__ import annotations

from typing import Any

from benchmarks.generate import Shape, fill, roll_up
from benchmarks.load import Load
from benchmarks.reads import READS, _time
from benchmarks.results import Result
from benchmarks.sides import check, ours
from benchmarks.stack import Stack, running_stack
from benchmarks.stats import in_turns
from taximeter_db import connect

WIDTHS = ("day", "week", "month")
DAYS = (60, 1_095)
_READS = ("page 1", "page deep", "page filtered", "by event id")


def run(form: str) -> Result:
    """All widths and lengths in turns."""
    usages, events = {"short": (1_000_000, 100_000), "full": (20_000_000, 500_000), "smoke": (3_000, 500)}[form]
    result = Result(notes=[f"{usages:,} usages of 1,000 workspaces"])
    with running_stack() as stack:
        cases = [(width, days) for days in DAYS for width in WIDTHS]
        for width, days in cases:
            _generate(stack, f"{width}_{days}", Shape(usages=usages, days=days, width=width))
        sides = {
            f"{width}, {days} days": (lambda _, name=f"{width}_{days}": _measure(stack, name, events))  # type: ignore[misc]
            for width, days in cases
        }
        result.sides = in_turns(1 if form == "smoke" else 3, sides)
        for width, days in cases:
            with connect.connection(stack.postgres.url(f"{width}_{days}")) as conn:
                check(conn)
    return result


def _generate(stack: Stack, name: str, shape: Shape) -> None:
    print(f"  {name}: generating {shape.usages:,} usages …", flush=True)
    stack.create(name)
    fill(stack.postgres.url(name), shape)
    with connect.connection(stack.postgres.url(name)) as conn:
        roll_up(stack.postgres.url(name), Shape(usages=shape.usages, workspaces=1))
        conn.execute("VACUUM (ANALYZE)")


def _measure(stack: Stack, name: str, events: int) -> dict[str, Any]:
    measured = ours(stack, Load(events=events), onto=name)
    with connect.connection(stack.postgres.url(name)) as conn:
        workspace_id = "ws-000001"
        row = conn.execute(
            "SELECT usage_count FROM taximeter.workspaces WHERE workspace_id = %s", [workspace_id]
        ).fetchone()
        assert row is not None
        for title in _READS:
            measured[f"{title}, ms"] = _time(conn, READS[title], workspace_id, row[0])["p50_ms"]
    return measured
