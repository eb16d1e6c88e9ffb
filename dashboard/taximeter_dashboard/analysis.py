"""The analysis tab: spending over time and by tool or model, as SVG with a table behind it."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Query, Request
from psycopg import Connection
from starlette.responses import Response

from taximeter_dashboard import amounts, pages
from taximeter_dashboard.charts import Column, Segment, columns_svg
from taximeter_dashboard.house import CurrentHouse, admit
from taximeter_dashboard.render import zone_of
from taximeter_db import rollups
from taximeter_db.reading import spending

SERIES_MAX: Final = 5
OTHER: Final = "All other"
SPANS: Final = {"day": (24, "hour", "24 hours"), "month": (30, "day", "30 days"), "year": (12, "month", "12 months")}
HIGH_TIMES: Final = 3
HIGH_BEFORE: Final = 14
_RUN_MAX: Final = 20_000

router = APIRouter(include_in_schema=False)

Span = Literal["day", "month", "year"]


class Total(msgspec.Struct, frozen=True):
    """What one tool or model cost in the whole period, in picodollars; `share` of the largest, in thousandths."""

    name: str
    color: int
    usages: int
    cost: int
    share: int


class Period(msgspec.Struct, frozen=True):
    """An hour, day or month of the table."""

    label: str
    usages: int
    cost: int
    costs: list[int]
    high: bool
    running: bool


class Analysis(msgspec.Struct, frozen=True):
    """What the tab shows. Amounts in picodollars."""

    periods: list[Period]
    totals: list[Total]
    usages: int
    cost: int
    before: int | None
    behind: int
    unit: str


def starts(now: dt.datetime, where: zoneinfo.ZoneInfo, span: Span, back: int = 0) -> list[dt.datetime]:
    """The local, naive starts of a span's periods, the last one being that of now, or a whole span earlier."""
    count, unit, _ = SPANS[span]
    local = now.astimezone(where).replace(tzinfo=None, minute=0, second=0, microsecond=0)
    if unit == "hour":
        return [local - dt.timedelta(hours=count * (back + 1) - 1 - step) for step in range(count)]
    if unit == "day":
        local = local.replace(hour=0)
        return [local - dt.timedelta(days=count * (back + 1) - 1 - step) for step in range(count)]
    month = local.year * 12 + local.month - 1 - count * (back + 1) + 1
    return [dt.datetime((month + step) // 12, (month + step) % 12 + 1, 1) for step in range(count)]  # noqa: DTZ001


def analyse(
    conn: Connection[Any],
    workspace_id: str,
    span: Span,
    by: Literal["tool", "model"],
    now: dt.datetime,
    where: zoneinfo.ZoneInfo,
) -> Analysis:
    """Read the rollups of a span and of the one before it."""
    reached, count = rollups.follow(conn, workspace_id, _RUN_MAX)
    unit: Any = SPANS[span][1]
    edges = starts(now, where, span)
    first, earlier = _instant(edges[0], where), _instant(starts(now, where, span, 1)[0], where)
    read = {"unit": unit, "by": by, "zone": where.key}
    found = spending.spending(conn, workspace_id, since=first, until=now + dt.timedelta(days=1), **read)
    past = spending.spending(conn, workspace_id, since=earlier, until=first, **read)
    totals = _totals(found)
    names = [total.name for total in totals if total.name != OTHER]
    periods = _periods(edges, found, names, unit)
    return Analysis(
        periods=periods,
        totals=totals,
        usages=sum(one.usages for one in found),
        cost=sum(one.cost for one in found),
        before=sum(one.cost for one in past) if past else None,
        behind=count - reached,
        unit=unit,
    )


def _instant(local: dt.datetime, where: zoneinfo.ZoneInfo) -> dt.datetime:
    return local.replace(tzinfo=where).astimezone(dt.UTC)


def _totals(found: list[spending.Spent]) -> list[Total]:
    sums: dict[str, list[int]] = {}
    for one in found:
        entry = sums.setdefault(one.name or "no model", [0, 0])
        entry[0] += one.usages
        entry[1] += one.cost
    ranked = sorted(sums.items(), key=lambda item: (-item[1][1], item[0]))
    top, rest = ranked[:SERIES_MAX], ranked[SERIES_MAX:]
    if rest:
        top.append((OTHER, [sum(entry[0] for _, entry in rest), sum(entry[1] for _, entry in rest)]))
    largest = max((entry[1] for _, entry in top), default=0) or 1
    # A colour belongs to the name, not to its rank: by the alphabet, it stays when the ranks change places.
    colors = {name: place + 1 for place, name in enumerate(sorted(name for name, _ in top if name != OTHER))}
    return [Total(name, colors.get(name, 0), entry[0], entry[1], entry[1] * 1000 // largest) for name, entry in top]


def _periods(edges: list[dt.datetime], found: list[spending.Spent], names: list[str], unit: str) -> list[Period]:
    places = {name: place for place, name in enumerate(names)}
    costs = {edge: [0] * (len(names) + 1) for edge in edges}
    counts = dict.fromkeys(edges, 0)
    for one in found:
        if one.start in costs:
            costs[one.start][places.get(one.name or "no model", len(names))] += one.cost
            counts[one.start] += one.usages
    sums = [sum(costs[edge]) for edge in edges]
    return [
        Period(
            label=_label(edge, unit),
            usages=counts[edge],
            cost=sums[place],
            costs=costs[edge],
            high=_high(sums, place),
            running=place == len(edges) - 1,
        )
        for place, edge in enumerate(edges)
    ]


def _high(sums: list[int], place: int) -> bool:
    """Over three times the median of the 14 periods before."""
    before = sorted(sums[max(0, place - HIGH_BEFORE) : place])
    return len(before) == HIGH_BEFORE and sums[place] * 2 > HIGH_TIMES * (before[6] + before[7]) > 0


def _label(edge: dt.datetime, unit: str) -> str:
    if unit == "hour":
        return f"{edge:%H:%M}"
    return f"{edge.day} {edge:%b}" if unit == "day" else f"{edge:%b %Y}"


@router.get("/workspaces/{workspace_id}/analysis")
def show_analysis(
    request: Request,
    house: CurrentHouse,
    workspace_id: str,
    span: Span = "month",
    by: Annotated[Literal["tool", "model"], Query()] = "tool",
) -> Response:
    """The tab."""
    now, where = dt.datetime.now(dt.UTC), zone_of(request)
    with house.database() as conn:
        viewer = admit(request, conn, workspace_id)
        result = analyse(conn, workspace_id, span, by, now, where)
        colors = [total.color for total in result.totals]
        columns = [
            Column(
                one.label,
                [Segment(color, cost) for color, cost in zip(colors, one.costs, strict=False) if cost],
                one.high,
                one.running,
            )
            for one in result.periods
        ]
        return pages.show(
            request,
            house,
            conn,
            viewer,
            workspace_id,
            "analysis",
            result=result,
            span=span,
            by=by,
            spans=SPANS,
            wide=columns_svg(columns, 1080, 260),
            small=columns_svg(columns, 264, 200),
            sentence=_sentence(result, SPANS[span][2]),
            change=_change(result),
        )


def _sentence(result: Analysis, words: str) -> str:
    top = max(result.periods, key=lambda one: one.cost)
    text = f"Cost by {result.unit} over {words}: {amounts.exact(result.cost)} in all"
    return f"{text}, most of it in {top.label} with {amounts.exact(top.cost)}." if result.cost else f"{text}."


def _change(result: Analysis) -> str | None:
    if not result.before:
        return None
    percent = (result.cost - result.before) * 100 / result.before  # a ratio, no amount
    if abs(percent) < 1:
        return "about as much as in the period before"
    more = "more" if percent > 0 else "less"
    return f"{abs(percent):,.0f} % {more} than in the period before ({amounts.exact(result.before)})"
