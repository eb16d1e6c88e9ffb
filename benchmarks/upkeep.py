"""How fast the whole ledger is verified, and all flags are rebuilt. The ledger verified was booked, not generated."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.booking import book
from benchmarks.load import Load
from benchmarks.results import Result
from benchmarks.sides import fresh, verified
from benchmarks.stack import Stack, running_stack
from benchmarks.stats import in_turns
from taximeter_db import connect
from taximeter_worker.flags.connecting import connect_flags
from taximeter_worker.flags.rebuild import rebuild


def run(form: str) -> Result:
    """Both in turns, three times."""
    usages, workspaces = {"short": (1_000_000, 100_000), "full": (4_000_000, 200_000), "smoke": (5_000, 500)}[form]
    with running_stack() as stack:
        url = fresh(stack, 1_000)["TAXIMETER_DATABASE_URL"]
        print(f"  booking {usages:,} usages …", flush=True)
        booked_per_second = book(url, Load(events=usages))
        with connect.connection(url) as conn:
            conn.execute("VACUUM (ANALYZE)")
        environment = fresh(stack, workspaces)
        sides = in_turns(
            1 if form == "smoke" else 3,
            {"verify": lambda _: _verify(stack, url), "rebuild": lambda _: _rebuild(stack, environment)},
        )
    notes = [
        f"verify: {usages:,} usages of 1,000 workspaces, booked over one connection at {booked_per_second:,.0f}/s",
        f"rebuild: {workspaces:,} workspaces",
    ]
    result = Result(sides=sides, notes=notes)
    result.take("verify", "verify", "per_second")
    result.take("rebuild", "rebuild", "per_second")
    return result


def _verify(stack: Stack, url: str) -> dict[str, Any]:
    cpu, own, began = stack.cpu_meter(), time.process_time(), time.monotonic()
    report = verified(url)
    assert report.ok, report.faults[:3]
    return _measured(report.usages, began, {"verify": time.process_time() - own, **cpu.used()})


def _rebuild(stack: Stack, environment: dict[str, str]) -> dict[str, Any]:
    with stack.valkey.client() as client:
        client.flushall()
    flags = connect_flags(environment["TAXIMETER_REDIS_URL"], 10)
    cpu, own, began = stack.cpu_meter(), time.process_time(), time.monotonic()
    with connect.connection(environment["TAXIMETER_DATABASE_URL"]) as conn:
        done = rebuild(conn, flags)
    assert done is not None
    measured = _measured(done.workspaces, began, {"rebuild": time.process_time() - own, **cpu.used()})
    flags.close()
    return measured


def _measured(count: int, began: float, used: dict[str, float]) -> dict[str, Any]:
    seconds = time.monotonic() - began
    return {
        "per_second": count / seconds,
        "cpu_us_per_row": {role: spent / count * 1e6 for role, spent in used.items() if role != "broker"},
    }
