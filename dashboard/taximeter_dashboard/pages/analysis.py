"""The analysis tab: charts with the sentence that each of them says, and the tables behind them."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Query, Request
from psycopg import Connection
from starlette.responses import Response

from taximeter_dashboard.charts import columns as charts
from taximeter_dashboard.charts.balance import Flip, Point, balance_svg
from taximeter_dashboard.charts.balance import Span as Axis
from taximeter_dashboard.charts.flips import read as read_flips
from taximeter_dashboard.context import CurrentContext, WorkspaceContext, authorize
from taximeter_dashboard.formatting import amounts
from taximeter_dashboard.formatting.times import zone_of
from taximeter_dashboard.pages import tracking
from taximeter_dashboard.pages.budgets import CAUSES
from taximeter_dashboard.reading.spending import SPANS, Analysis, Period, Question, Span, Split, analyse, label, starts
from taximeter_db.budgets import reading as budgets
from taximeter_db.queries import history, labels, payments
from taximeter_db.queries.summary import Summary

_POINTS: Final = 120
REFUSALS_SHOWN: Final = 50
_PAYMENTS_MEANWHILE: Final = 20
"""Payments that may be booked between two looks at the log of them."""
_QUARTER: Final = dt.timedelta(minutes=15)

router = APIRouter(include_in_schema=False)


@router.get("/workspaces/{workspace_id}/analysis")
def show_analysis(  # noqa: PLR0913 -- the terms of a question to the page
    request: Request,
    app_context: CurrentContext,
    workspace_id: str,
    span: Span = "month",
    by: Annotated[Split, Query()] = "tool",
    tag: Annotated[str, Query(max_length=32)] = "",
    flips: Annotated[int, Query(ge=1, le=1_000, description="Page of the list of flips.")] = 1,
) -> Response:
    """The tab."""
    now, where = dt.datetime.now(dt.UTC), zone_of(request)
    with app_context.database() as conn:
        viewer = authorize(request, conn, workspace_id)
        found = app_context.summary(conn, workspace_id)
        result = analyse(conn, Question(workspace_id, span, by, where, tag), now)
        edges = [edge.replace(tzinfo=where) for edge in starts(now, where, span)]
        return tracking.show(
            WorkspaceContext(request, app_context, conn, viewer, workspace_id),
            "analysis",
            found=found,
            result=result,
            span=span,
            by=by,
            tag=tag if by == "tag" else "",
            splits=_splits(result.labels),
            spans=SPANS,
            costs=charts.columns_svg("costs-chart", _columns(result)),
            costs_say=_costs_say(result, SPANS[span][2]),
            each=charts.line_svg("each-chart", _each(result)),
            each_says=_each_says(result),
            change=_change(result),
            table=table(result),
            refusals=_refusals(conn, workspace_id, result.since),
            **_history(conn, found, result, edges, now, flips),
        )


def _splits(known: labels.Labels) -> list[tuple[str, str, str]]:
    """By what the costs can be split: the address's ``by`` and ``tag``, and the word for it."""
    splits = [("tool", "", "tool"), ("model", "", "model")]
    splits += [("user", "", "user")] if known.users else []
    return splits + [("tag", key, f"tag {key}") for key in known.tags]


class Refused(msgspec.Struct, frozen=True):
    """A time in which a hard budget refused calls."""

    name: str
    begun_at: dt.datetime
    ended_at: dt.datetime | None
    spent: str
    cause: str
    cause_id: str


class Row(msgspec.Struct, frozen=True):
    """A line of a table behind a chart: each amount with the zeros that bring its point in line."""

    label: str
    usages: int
    amounts: list[tuple[str, str]]


def table(result: Analysis) -> list[Row]:
    """The lines of the table of costs, the last one being the total."""
    before = result.before is not None
    lines = [
        [
            *(amounts.exact(cost) for cost in one.costs[: len(result.totals)]),
            amounts.exact(one.cost),
            amounts.average(one.cost, one.usages) if one.usages else "",
            *([amounts.exact(one.before or 0)] if before else []),
        ]
        for one in result.periods
    ]
    last = [amounts.exact(one.cost) for one in result.totals]
    last += [amounts.exact(result.cost), amounts.average(result.cost, result.usages)]
    lines.append([*last, amounts.exact(result.before)] if result.before is not None else last)
    columns = [amounts.padded(column) for column in zip(*lines, strict=True)]
    heads = [(_head(one), one.usages) for one in result.periods]
    return [
        Row(label, usages, list(line))
        for (label, usages), line in zip([*heads, ("Total", result.usages)], zip(*columns, strict=True), strict=True)
    ]


def _refusals(conn: Connection[Any], workspace_id: str, since: dt.datetime) -> list[Refused]:
    return [
        Refused(
            one.name,
            one.begun_at,
            one.ended_at,
            f"{amounts.exact(one.spent)} of {amounts.exact(one.limit)}",
            CAUSES[one.cause],
            one.cause_id or "",
        )
        for one in budgets.refusals(conn, workspace_id, since, REFUSALS_SHOWN)
    ]


def _head(one: Period, *, high: bool = True) -> str:
    return f"{one.label}{' (so far)' if one.running else ''}{' ▲ high' if high and one.high else ''}"


def _columns(result: Analysis) -> list[charts.Column]:
    colors = [total.color for total in result.totals]
    return [
        charts.Column(
            one.label,
            [charts.Segment(color, cost) for color, cost in zip(colors, one.costs, strict=False) if cost],
            one.high,
            one.running,
            one.before,
        )
        for one in result.periods
    ]


def _each(result: Analysis) -> list[tuple[str, int | None]]:
    return [(one.label, one.each) for one in result.periods]


def _costs_say(result: Analysis, words: str) -> str:
    text = f"Cost by {result.unit} over {words}: {amounts.exact(result.cost)} in all"
    if not result.cost:
        return f"{text}."
    top = max(result.periods, key=lambda one: one.cost)
    text += f", most of it in {top.label} with {amounts.exact(top.cost)}."
    if high := [one.label for one in result.periods if one.high]:
        text += f" High: {', '.join(high)}."
    return text


def _each_says(result: Analysis) -> str:
    text = f"Average cost of a usage by {result.unit}: {amounts.average(result.cost, result.usages)} over all"
    used = [one for one in result.periods if one.usages]
    if not used:
        return f"{text}."
    # Compared by cross-multiplication in integers: an average is a fraction.
    most = used[0]
    for one in used:
        if one.cost * most.usages > most.cost * one.usages:
            most = one
    return f"{text}; the highest was {amounts.average(most.cost, most.usages)}, {most.label}."


def _change(result: Analysis) -> str | None:
    if not result.before:
        return None
    percent = (result.cost - result.before) * 100 / result.before  # a ratio, no amount
    if abs(percent) < 1:
        return "about as much as in the period before"
    more = "more" if percent > 0 else "less"
    return f"{abs(percent):,.0f} % {more} than in the period before ({amounts.exact(result.before)})"


def _history(
    conn: Connection[Any],
    found: Summary,
    result: Analysis,
    edges: list[dt.datetime],
    now: dt.datetime,
    page: int,
) -> dict[str, Any]:
    """The balance over time and its flips; `edges` begin the periods by the viewer's clock."""
    quarters = max(1, -(-(now - result.since) // _QUARTER // _POINTS))
    steps = range(1, (now - result.since) // _QUARTER // quarters + 2)
    beginnings = [edge.astimezone(dt.UTC) for edge in edges]
    edges_at = [*(result.since + step * quarters * _QUARTER for step in steps), *beginnings]
    balances = history.balances(conn, found.workspace_id, result.since, edges_at)
    points = [Point(max(one.at, result.since), one.balance) for one in balances]
    axis = Axis(result.since, now, [(edge, label(edge.replace(tzinfo=None), result.unit)) for edge in edges])
    seen = read_flips(conn, found.workspace_id, result.since, now)
    marks = [one.flip for one in seen.lines[::-1]]
    # A flip is a point of the line too, wherever the line was looked at.
    points = sorted([*points, *(Point(one.at, one.balance) for one in marks)], key=lambda one: one.at)
    if points:
        points.append(Point(now, found.balance))
    ends = [*beginnings[1:], now]
    labels = [_head(one, high=False) for one in result.periods]
    known = _payments_known_since(conn, found)
    return {
        "ends": [] if result.behind else _ends(labels, ends, balances, found.balance, known),
        "balance": balance_svg("balance-chart", axis, points, marks, (found.minimum, found.low)) if points else "",
        "balance_says": _balance_says(points, marks, found),
        "flips": seen,
        "flip_page": seen.page(page),
    }


def _payments_known_since(conn: Connection[Any], found: Summary) -> dt.datetime | None:
    """From when on `history.balances` knows every payment, None where it knows them all."""
    first = found.payment_count - history.PAYMENTS_MAX + _PAYMENTS_MEANWHILE
    row = payments.get(conn, found.workspace_id, first) if first > 1 else None
    return row.recorded_at if row else None


def _ends(
    labels: list[str],
    ends: list[dt.datetime],
    balances: list[history.Balance],
    balance: int,
    known: dt.datetime | None,
) -> list[tuple[str, tuple[str, str]]]:
    """The balance at the end of each period since the first one, as far as it is known to the last digit."""
    lines = []
    for name, end in zip(labels, ends, strict=True):
        before = [one for one in balances if one.at < end]
        if before and (known is None or known < end):
            lines.append((name, before[-1].balance))
    if lines:
        lines[-1] = (lines[-1][0], balance)
    cells = amounts.padded([amounts.exact(pico) for _, pico in lines])
    return [(name, cell) for (name, _), cell in zip(lines, cells, strict=True)]


def _balance_says(points: list[Point], marks: list[Flip], found: Summary) -> str:
    if not points:
        return ""
    limits = (found.minimum, found.low)
    first, last, lowest = (
        amounts.rounded(pico, limits) for pico in (points[0].balance, found.balance, min(one.balance for one in points))
    )
    off = sum(one.off for one in marks)
    went = "never went off" if not off else "went off once" if off == 1 else f"went off {off} times"
    return f"Balance from {first} to {last}, at the lowest {lowest}. AI {went}."
