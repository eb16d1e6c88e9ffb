"""How fast `taximeter rebuild` makes a moment again from the log: few large workspaces against many small ones.

The logs are written by `benchmarks.generate`, spread over sixty days in the ledger's own partitions.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.generate import Shape, fill
from benchmarks.results import Result
from benchmarks.stack import Stack, running_stack
from benchmarks.stats import in_turns
from taximeter_db import connect
from taximeter_db.audit.rebuild import rebuild

USAGES = {"short": 4_000_000, "full": 20_000_000, "smoke": 5_000}
WORKSPACES = {"thousand": 1_000, "many": 100_000}


def run(form: str) -> Result:
    """Both logs in turns, three times; each rebuild has to agree with the live tables."""
    usages = USAGES[form]
    result = Result(notes=[f"{usages:,} usages over 60 days; thousand: 1,000 workspaces, many: 100,000"])
    with running_stack() as stack:
        for name, workspaces in WORKSPACES.items():
            print(f"  {name}: generating {usages:,} usages …", flush=True)
            stack.create(name)
            fill(stack.postgres.url(name), Shape(usages=usages, workspaces=min(workspaces, usages)))
        result.sides = in_turns(
            1 if form == "smoke" else 3, {name: lambda _, name=name: _rebuild(stack, name) for name in WORKSPACES}
        )
    return result


def _rebuild(stack: Stack, name: str) -> dict[str, Any]:
    cpu, began = stack.cpu_meter(), time.monotonic()
    with connect.connection(stack.postgres.url(name)) as conn:
        rebuilt = rebuild(conn)
    assert rebuilt.ok, rebuilt.differences[:3]
    seconds = time.monotonic() - began
    rows = rebuilt.usages + rebuilt.payments
    used = {role: spent / rows * 1e6 for role, spent in cpu.used().items() if role == "postgresql"}
    return {"per_second": rows / seconds, "seconds": seconds, "cpu_us_per_row": used}
