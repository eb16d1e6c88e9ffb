"""Usages that match a filter, and their totals, by way of the rollups."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import msgspec
from psycopg import Connection

from taximeter_db import money
from taximeter_db.reading.usages import UsageRow, pick
from taximeter_db.sql import statement

_MATCH = {order: statement("match_usages").replace("{order}", order) for order in ("ASC", "DESC")}
_TOTALS = """
SELECT coalesce(sum(usages), 0)::bigint, coalesce(sum(cost), 0)::numeric(27,12)::text FROM taximeter.usage_rollups
WHERE workspace_id = %(workspace_id)s AND slot >= %(since)s AND slot < %(until)s
  AND (%(tool)s::text IS NULL OR tool = %(tool)s) AND (%(model)s::text IS NULL OR model = %(model)s)
"""
_NAMES = "SELECT tool, model FROM taximeter.usage_names WHERE workspace_id = %s ORDER BY tool, model LIMIT 500"
_EVER: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_NEVER: Final = dt.datetime(9000, 1, 1, tzinfo=dt.UTC)
_SLOTS: Final = 2_000
_LAST: Final = 2**62


class Filter(msgspec.Struct, frozen=True):
    """What to look for; None: anything. `since` and `until` (excluded) at quarter-hours; `cost_min` in picodollars."""

    tool: str | None = None
    model: str | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    cost_min: int | None = None

    @property
    def empty(self) -> bool:
        """Whether everything matches."""
        return self == Filter()

    def parameters(self, workspace_id: str) -> dict[str, Any]:
        """For the statements."""
        return {
            "workspace_id": workspace_id,
            "tool": self.tool,
            "model": self.model,
            "since": self.since or _EVER,
            "until": self.until or _NEVER,
            "cost_min": None if self.cost_min is None else money.numeric_text(self.cost_min),
        }


def matches(
    conn: Connection[Any],
    workspace_id: str,
    wanted: Filter,
    *,
    after: int = 0,
    before: int = _LAST,
    newest: bool = True,
    limit: int = 21,
) -> list[UsageRow]:
    """The next matches with a number between `after` and `before`, from one end or the other."""
    found = conn.execute(
        _MATCH["DESC" if newest else "ASC"],
        {**wanted.parameters(workspace_id), "after": after, "before": before, "slots": _SLOTS, "limit": limit},
    )
    return pick(conn, workspace_id, [row[0] for row in found])


def totals(conn: Connection[Any], workspace_id: str, wanted: Filter) -> tuple[int, int] | None:
    """How many match and what they cost in picodollars; None where rollups cannot tell (a least cost)."""
    if wanted.cost_min is not None:
        return None
    row = conn.execute(_TOTALS, wanted.parameters(workspace_id)).fetchone()
    return (row[0], money.from_numeric_text(row[1])) if row else (0, 0)


def names(conn: Connection[Any], workspace_id: str) -> tuple[list[str], list[str]]:
    """Tools and models that were ever used; the first 500 pairs."""
    found = conn.execute(_NAMES, [workspace_id]).fetchall()
    return sorted({row[0] for row in found}), sorted({row[1] for row in found if row[1]})
