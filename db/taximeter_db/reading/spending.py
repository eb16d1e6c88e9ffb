"""Spending over time, by way of the rollups' running totals."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Any, Literal

import msgspec
from psycopg import Connection

from taximeter_db import money

Unit = Literal["hour", "day", "month"]
# What fell into a period is the difference of the running totals at its two ends: one look-up for each end and each tool,
# model and band, whatever the length of the period. A zone's hours and days begin at quarter-hours of UTC, as slots do.
_AT = """
SELECT e.place, k.{name}, sum(r.usages_total)::bigint, sum(r.cost_total)::numeric(27,12)::text
FROM unnest(%(edges)s::timestamptz[]) WITH ORDINALITY AS e (moment, place)
CROSS JOIN taximeter.usage_names AS k
CROSS JOIN LATERAL (
    SELECT r.usages_total, r.cost_total FROM taximeter.usage_rollups AS r
    WHERE r.workspace_id = %(workspace_id)s AND r.tool = k.tool AND r.model = k.model AND r.band = k.band
      AND r.slot < e.moment
    ORDER BY r.slot DESC, r.block DESC LIMIT 1
) AS r
WHERE k.workspace_id = %(workspace_id)s
GROUP BY 1, 2
"""
_STATEMENTS = {name: _AT.replace("{name}", name) for name in ("tool", "model")}


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
    periods = _periods(since, until, unit, zoneinfo.ZoneInfo(zone))
    edges = [max(since, at) for _, at in periods] + [until]
    found = conn.execute(_STATEMENTS[by], {"workspace_id": workspace_id, "edges": edges})
    names: dict[str, list[tuple[int, int]]] = {}
    for place, name, usages, cost in found:
        # No row at an edge means that nothing was used before it; totals never fall, so a gap cannot follow a row.
        names.setdefault(name, [(0, 0)] * len(edges))[place - 1] = (usages, money.from_numeric_text(cost))
    return [
        Spent(start, name, totals[place + 1][0] - totals[place][0], totals[place + 1][1] - totals[place][1])
        for place, (start, _) in enumerate(periods)
        for name, totals in sorted(names.items())
        if totals[place + 1][0] > totals[place][0]
    ]


def _periods(
    since: dt.datetime, until: dt.datetime, unit: Unit, where: zoneinfo.ZoneInfo
) -> list[tuple[dt.datetime, dt.datetime]]:
    """The local starts of the periods that touch a span, each with its moment in UTC.

    An hour that the clock repeats is one period of two hours, one that it leaves out is empty.
    """
    start = since.astimezone(where).replace(tzinfo=None, minute=0, second=0, microsecond=0)
    if unit != "hour":
        start = start.replace(hour=0)
    if unit == "month":
        start = start.replace(day=1)
    found = []
    while (moment := start.replace(tzinfo=where).astimezone(dt.UTC)) < until:
        found.append((start, moment))
        if unit == "month":
            start = dt.datetime(start.year + start.month // 12, start.month % 12 + 1, 1)  # noqa: DTZ001 - local
        else:
            start += dt.timedelta(hours=1) if unit == "hour" else dt.timedelta(days=1)
    return found
