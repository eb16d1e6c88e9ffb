"""Whether what was counted for each budget is what the log says that its usages cost."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from typing import Any, Final

from psycopg import Connection

from taximeter_db.audit.faults import Fault
from taximeter_db.money import format_usd, from_numeric_text
from taximeter_db.sql import statements

_SQL: Final = statements("verify_budgets")


def counters(conn: Connection[Any], explained: Collection[str]) -> list[Fault]:
    """Recount the budgets from the log, workspace by workspace, but for those whose log is wrong itself (`explained`).

    A fault names the budget in `field`, and the first slice of time that differs.
    """
    faults = []
    for (workspace_id,) in conn.execute(_SQL["workspaces"]).fetchall():
        if workspace_id in explained:
            continue
        # never prepared: workspaces differ in size by orders of magnitude
        rows = conn.execute(_SQL["differing"], {"workspace_id": workspace_id}, prepare=False)
        faults += [_fault(workspace_id, row) for row in rows]
    return faults


def _fault(workspace_id: str, row: Sequence[Any]) -> Fault:
    name, bucket, *sums = row
    since = bucket.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%MZ")
    return Fault(workspace_id, "budget", stored=_sum(*sums[:2]), computed=_sum(*sums[2:]), field=name, since=since)


def _sum(cost: str, usages: int) -> str:
    return f"{format_usd(from_numeric_text(cost))} USD of {usages:,} {'usage' if usages == 1 else 'usages'}"
