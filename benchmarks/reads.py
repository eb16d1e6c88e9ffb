"""What the page asks the database, in one workspace with millions of usages: the statements themselves, without the page."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from psycopg import Connection

from benchmarks.generate import Shape, fill, roll_up
from benchmarks.results import Result
from benchmarks.sides import check
from benchmarks.stack import running_stack
from benchmarks.stats import in_turns, percentile
from taximeter_db import connect
from taximeter_db.queries import filtered, payments, summary, usages

USAGES = {"short": 2_000_000, "full": 10_000_000, "smoke": 5_000}
PAGE = 20
ROUNDS = 101
Read = Callable[[Connection[Any], str, int], object]

READS: dict[str, Read] = {
    "page 1": lambda conn, name, count: usages.between(conn, name, count - PAGE + 1, count),
    "page deep": lambda conn, name, count: usages.between(conn, name, count // 2 - PAGE + 1, count // 2),
    "page filtered": lambda conn, name, _: filtered.matches(conn, name, filtered.Filter(tool="chat", model="o3")),
    "filtered, deep": lambda conn, name, count: filtered.matches(
        conn, name, filtered.Filter(tool="chat", model="o3"), filtered.Window(before=count // 2)
    ),
    "filtered, no match": lambda conn, name, _: filtered.matches(conn, name, filtered.Filter(cost_min=10**12)),
    "filtered, totals": lambda conn, name, _: filtered.totals(conn, name, filtered.Filter(tool="chat", model="o3")),
    "summary": lambda conn, name, _: summary.read(conn, name),
    "payments": lambda conn, name, _: payments.between(conn, name, 1, PAGE),
    "by number": lambda conn, name, count: usages.get(conn, name, max(1, count // 3)),
    "by event id": lambda conn, name, count: usages.find(conn, name, _event_id(conn, name, max(1, count // 3))),
}
_ids: dict[tuple[int, str], str] = {}


def _event_id(conn: Connection[Any], name: str, seq: int) -> str:
    key = (id(conn), name)
    if key not in _ids:
        found = usages.get(conn, name, seq)
        assert found is not None
        _ids[key] = found.event_id
    return _ids[key]


def run(form: str) -> Result:
    """Each read in turns, 101 times a turn, from a connection like the page's."""
    shape = Shape(usages=USAGES[form], workspaces=1, payloads=True)
    result = Result(notes=[f"{shape.usages:,} usages in one workspace over 60 days"])
    with running_stack() as stack:
        print(f"  generating {shape.usages:,} usages …", flush=True)
        environment = stack.fresh("reads")
        url = environment["TAXIMETER_DATABASE_URL"]
        fill(url, shape)
        roll_up(url, shape)
        with connect.connection(url) as conn:
            name = shape.workspace_id(0)
            sides = {
                title: (lambda _, read=read: time_read(conn, read, name, shape.usages))  # type: ignore[misc]
                for title, read in READS.items()
            }
            result.sides = in_turns(1 if form == "smoke" else 3, sides)
        check(url, shape.usages)
    for figure in ("page 1", "page deep", "page filtered", "summary"):
        result.take(figure, figure, "p50_ms")
    return result


def time_read(conn: Connection[Any], read: Read, name: str, count: int) -> dict[str, Any]:
    """Milliseconds that a read takes: the first time, in the middle, and at worst but one percent."""
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        read(conn, name, count)
        taken.append((time.perf_counter() - began) * 1_000)
    return {"p50_ms": percentile(taken, 50), "p99_ms": percentile(taken, 99), "first_ms": taken[0]}
