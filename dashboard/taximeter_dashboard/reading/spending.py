"""What the analysis tab adds up: spending over time and by tool or model, from the rollups."""

from __future__ import annotations

import datetime as dt
import hashlib
import zoneinfo
from typing import Any, Final, Literal

import msgspec
from psycopg import Connection

from taximeter_db.ledger import rollups
from taximeter_db.queries import labels, spending

SERIES_MAX: Final = 5
OTHER: Final = "All other"
NO_MODEL: Final = "no model"
OTHER_NAMES: Final = "other names"
SPANS: Final = {"day": (24, "hour", "24 hours"), "month": (30, "day", "30 days"), "year": (12, "month", "12 months")}
HIGH_TIMES: Final = 3
HIGH_BEFORE: Final = 14
_RUN_MAX: Final = 20_000
_CLOCKS_APART: Final = dt.timedelta(hours=1)
"""By how much the database may be ahead of us at most."""

Span = Literal["day", "month", "year"]
Split = Literal["tool", "model", "user", "tag"]
NONE: Final = {"user": "no user", "tag": "no tag"}
_REST: Final = "\x7frest"
"""What is left of a breakdown by label beside the values that are shown."""


class Total(msgspec.Struct, frozen=True):
    """What one tool or model cost in the whole period, in picodollars; `share` of the largest, in thousandths."""

    name: str
    color: int
    usages: int
    cost: int
    share: int


class Period(msgspec.Struct, frozen=True):
    """An hour, day or month of the table; `before` is what the same one of the span before cost, None before any use."""

    label: str
    usages: int
    cost: int
    costs: list[int]
    high: bool
    running: bool
    before: int | None = None

    @property
    def each(self) -> int | None:
        """The average cost of a usage to the nearest picodollar, for a chart."""
        return (self.cost * 2 + self.usages) // (self.usages * 2) if self.usages else None


class Analysis(msgspec.Struct, frozen=True):
    """What the tab shows. Amounts in picodollars; `before` is the whole span before, None where nothing was used in it."""

    periods: list[Period]
    totals: list[Total]
    usages: int
    cost: int
    before: int | None
    behind: int
    unit: str
    since: dt.datetime
    labels: labels.Labels
    others: bool
    """Whether some names are counted together, see `rollups.OTHER`."""


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


class Question(msgspec.Struct, frozen=True):
    """What the analysis is to show; `tag` is the key of the tag by which to split, `where` the viewer's time zone."""

    workspace_id: str
    span: Span
    by: Split
    where: zoneinfo.ZoneInfo
    tag: str = ""

    @property
    def label(self) -> str:
        """The label by which to split, as the rollups know it."""
        return rollups.USER if self.by == "user" else rollups.TAG + self.tag


def analyse(conn: Connection[Any], question: Question, now: dt.datetime) -> Analysis:
    """Read the rollups of a span and of the one before it."""
    workspace_id, span, by, where = question.workspace_id, question.span, question.by, question.where
    reached, count = rollups.follow(conn, workspace_id, _RUN_MAX)
    unit: Any = SPANS[span][1]
    edges, edges_before = starts(now, where, span), starts(now, where, span, 1)
    first, earlier = _instant(edges[0], where), _instant(edges_before[0], where)
    # Both spans in one look: they follow on one another. No period after the one that runs needs to be read.
    every = spending.spending(
        conn,
        workspace_id,
        spending.Span(earlier, now + _CLOCKS_APART, unit, where.key),
        by="model" if by == "model" else "tool",
    )
    found = [one for one in every if one.start >= edges[0]]
    past = [one for one in every if one.start < edges[0]]
    known = labels.of(conn, workspace_id)
    others = any(one.name == rollups.OTHER for one in found)
    if by in NONE:
        instants = [*(_instant(one, where) for one in edges), now + _CLOCKS_APART]
        found = _by_label(conn, question, edges, instants, found)
        others = question.label in known.others
    totals = _totals(found)
    names = [total.name for total in totals if total.name != OTHER]
    return Analysis(
        periods=_periods(edges, found, names, unit, _sums(edges_before, past) if past else None),
        totals=totals,
        usages=sum(one.usages for one in found),
        cost=sum(one.cost for one in found),
        before=sum(one.cost for one in past) if past else None,
        behind=count - reached,
        unit=unit,
        since=first,
        labels=known,
        others=others,
    )


def _by_label(
    conn: Connection[Any],
    question: Question,
    edges: list[dt.datetime],
    instants: list[dt.datetime],
    by_tool: list[spending.Spent],
) -> list[spending.Spent]:
    """What the most expensive values of a label, all others together, and usages without the label cost by period.

    `edges` are the periods' local starts, `instants` the same in UTC with the end of the last one. `by_tool` is what was
    spent in each by tool.
    """
    workspace_id, label = question.workspace_id, question.label
    values = labels.largest(conn, workspace_id, label, instants[0], SERIES_MAX)
    totals = labels.at_edges(conn, workspace_id, label, [*values, labels.EVERY], instants)
    split = []
    for place, edge in enumerate(edges):
        spent = {
            value: [after - before for before, after in zip(*at[place : place + 2], strict=True)]
            for value, at in totals.items()
        }
        every = spent.pop(labels.EVERY)
        mine = [one for one in by_tool if one.start == edge]
        whole = [sum(one.usages for one in mine), sum(one.cost for one in mine)]
        spent[_REST] = [all_of - sum(parts) for all_of, *parts in zip(every, *spent.values(), strict=True)]
        spent[NONE[question.by]] = [all_of - labelled for all_of, labelled in zip(whole, every, strict=True)]
        split += [spending.Spent(edge, name, usages, cost) for name, (usages, cost) in spent.items() if usages > 0]
    return split


def _instant(local: dt.datetime, where: zoneinfo.ZoneInfo) -> dt.datetime:
    return local.replace(tzinfo=where).astimezone(dt.UTC)


def _sums(edges: list[dt.datetime], found: list[spending.Spent]) -> list[int]:
    sums = dict.fromkeys(edges, 0)
    for one in found:
        if one.start in sums:
            sums[one.start] += one.cost
    return list(sums.values())


def _shown(name: str) -> str:
    return OTHER_NAMES if name == rollups.OTHER else name or NO_MODEL


def _totals(found: list[spending.Spent]) -> list[Total]:
    sums: dict[str, list[int]] = {}
    for one in found:
        entry = sums.setdefault(_shown(one.name), [0, 0])
        entry[0] += one.usages
        entry[1] += one.cost
    left = sums.pop(_REST, None)
    ranked = sorted(sums.items(), key=lambda item: (-item[1][1], item[0]))
    top, rest = ranked[:SERIES_MAX], ranked[SERIES_MAX:]
    rest += [] if left is None else [(_REST, left)]
    if rest:
        top.append((OTHER, [sum(entry[0] for _, entry in rest), sum(entry[1] for _, entry in rest)]))
    largest = max((entry[1] for _, entry in top), default=0) or 1
    colors = series_colors([name for name, _ in top if name != OTHER])
    return [Total(name, colors.get(name, 0), entry[0], entry[1], entry[1] * 1000 // largest) for name, entry in top]


def series_colors(names: list[str]) -> dict[str, int]:
    """A colour of 1 to 5 for each of at most five names.

    A colour belongs to its name, not to its rank: it follows from the name alone unless two of them want the same one.
    """
    taken: dict[int, str] = {}
    for name in sorted(names):
        wanted = hashlib.blake2b(name.encode(), digest_size=1).digest()[0] % SERIES_MAX
        while wanted in taken:
            wanted = (wanted + 1) % SERIES_MAX
        taken[wanted] = name
    return {name: color + 1 for color, name in taken.items()}


def _periods(
    edges: list[dt.datetime], found: list[spending.Spent], names: list[str], unit: str, before: list[int] | None
) -> list[Period]:
    places = {name: place for place, name in enumerate(names)}
    costs = {edge: [0] * (len(names) + 1) for edge in edges}
    counts = dict.fromkeys(edges, 0)
    for one in found:
        if one.start in costs:
            costs[one.start][places.get(_shown(one.name), len(names))] += one.cost
            counts[one.start] += one.usages
    sums = [sum(costs[edge]) for edge in edges]
    return [
        Period(
            label=label(edge, unit),
            usages=counts[edge],
            cost=sums[place],
            costs=costs[edge],
            high=_high(sums, place),
            running=place == len(edges) - 1,
            before=before[place] if before else None,
        )
        for place, edge in enumerate(edges)
    ]


def _high(sums: list[int], place: int) -> bool:
    """Over three times the median of the 14 periods before."""
    before = sorted(sums[max(0, place - HIGH_BEFORE) : place])
    return len(before) == HIGH_BEFORE and sums[place] * 2 > HIGH_TIMES * (before[6] + before[7]) > 0


def label(edge: dt.datetime, unit: str) -> str:
    """How a period is called."""
    if unit == "hour":
        return f"{edge:%H:%M}"
    return f"{edge.day} {edge:%b}" if unit == "day" else f"{edge:%b %Y}"
