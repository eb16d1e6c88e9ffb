"""Spending over time, by way of the rollups' running totals."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Any, Literal

import msgspec
from psycopg import Connection

from taximeter_db import money
from taximeter_db.sql import statements

Unit = Literal["hour", "day", "month"]
_AT_EDGES = {name: statements("rolled_up_totals")["at_edges"].replace("{name}", name) for name in ("tool", "model")}


class Spent(msgspec.Struct, frozen=True):
    """Usages of one tool or model within one hour, day or month. `start` is local and naive; `cost` in picodollars."""

    start: dt.datetime
    name: str
    usages: int
    cost: int


class Span(msgspec.Struct, frozen=True):
    """From `since` up to `until` (quarter-hours), cut by a unit of a zone's clock."""

    since: dt.datetime
    until: dt.datetime
    unit: Unit
    zone: str


def spending(
    conn: Connection[Any],
    workspace_id: str,
    span: Span,
    *,
    by: Literal["tool", "model"],
) -> list[Spent]:
    """What was spent in each unit of a span, by tool or model."""
    periods = _periods(span)
    edges = [max(span.since, at) for _, at in periods] + [span.until]
    found = conn.execute(_AT_EDGES[by], {"workspace_id": workspace_id, "edges": edges})
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


def _periods(span: Span) -> list[tuple[dt.datetime, dt.datetime]]:
    """The local starts of the periods that touch a span, each with its moment in UTC.

    An hour that the clock repeats is one period of two hours, one that it leaves out is empty.
    """
    where, unit = zoneinfo.ZoneInfo(span.zone), span.unit
    start = span.since.astimezone(where).replace(tzinfo=None, minute=0, second=0, microsecond=0)
    if unit != "hour":
        start = start.replace(hour=0)
    if unit == "month":
        start = start.replace(day=1)
    found = []
    while (moment := start.replace(tzinfo=where).astimezone(dt.UTC)) < span.until:
        found.append((start, moment))
        if unit == "month":
            start = dt.datetime(start.year + start.month // 12, start.month % 12 + 1, 1)  # noqa: DTZ001 - local
        else:
            start += dt.timedelta(hours=1) if unit == "hour" else dt.timedelta(days=1)
    return found
