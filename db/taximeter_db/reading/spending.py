"""Spending over time, by way of the rollups."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

import msgspec
from psycopg import Connection

from taximeter_db import money

Unit = Literal["hour", "day", "month"]
# A zone's hours and days begin at quarter-hours of UTC, so a slot never belongs to two of them.
_BY = """
SELECT date_trunc(%(unit)s, slot AT TIME ZONE %(zone)s) AS start, {name}, sum(usages)::bigint,
       sum(cost)::numeric(27,12)::text
FROM taximeter.usage_rollups
WHERE workspace_id = %(workspace_id)s AND slot >= %(since)s AND slot < %(until)s
GROUP BY 1, 2 ORDER BY 1
"""
_STATEMENTS = {name: _BY.replace("{name}", name) for name in ("tool", "model")}


class Spent(msgspec.Struct, frozen=True):
    """Usages of one tool or model within one hour, day or month. `start` is local and naive; `cost` in picodollars."""

    start: dt.datetime
    name: str
    usages: int
    cost: int


def spending(
    conn: Connection[Any],
    workspace_id: str,
    *,
    since: dt.datetime,
    until: dt.datetime,
    unit: Unit,
    by: Literal["tool", "model"],
    zone: str,
) -> list[Spent]:
    """What was spent from `since` up to `until` (quarter-hours), by `unit` of a zone's clock and by tool or model."""
    found = conn.execute(
        _STATEMENTS[by],
        {"workspace_id": workspace_id, "since": since, "until": until, "unit": unit, "zone": zone},
    )
    return [Spent(start, name, count, money.from_numeric_text(cost)) for start, name, count, cost in found]
