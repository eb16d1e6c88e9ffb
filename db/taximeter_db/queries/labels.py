"""What users and tags cost, and the usages that bear them, by way of the rollups of labels."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import msgspec
from psycopg import Connection

from taximeter_db import money
from taximeter_db.ledger import rollups
from taximeter_db.sql import statements

_ORDERS: Final = ("ASC", "DESC")
_SQL = statements("label_totals")
_STRETCHES = {order: _SQL["stretches"].replace("{order}", order) for order in _ORDERS}
_WITHIN = {order: _SQL["within"].replace("{order}", order) for order in _ORDERS}
LOOKED_UP_FIRST: Final = 100
"""Values whose past is looked up at first, and how many times more each further time."""
LOOKED_UP_TIMES: Final = 4
EVERY: Final = ""
"""The value that stands for all usages that bear a label."""
STRETCHES_MAX: Final = 100
"""Stretches of 1,024 usages at most that one search reads."""


class Labels(msgspec.Struct, frozen=True):
    """What a workspace's usages can be broken down by. `others` are the labels of which some values are counted together.

    `more` says that there are keys of tags beyond those that the rollups name.
    """

    users: bool = False
    tags: tuple[str, ...] = ()
    others: frozenset[str] = frozenset()
    more: bool = False


def of(conn: Connection[Any], workspace_id: str) -> Labels:
    """The labels of a workspace, as far as rolled up."""
    found = conn.execute(_SQL["labels"], {"workspace_id": workspace_id, "other": rollups.OTHER}).fetchall()
    names = [label for label, _ in found]
    tags = tuple(label.removeprefix(rollups.TAG) for label in names if label.startswith(rollups.TAG))
    others = frozenset(label for label, has_others in found if has_others)
    return Labels(rollups.USER in names, tags, others, rollups.OTHER in names)


def named(conn: Connection[Any], workspace_id: str, label: str, value: str) -> bool:
    """Whether the rollups name a value."""
    values = {"workspace_id": workspace_id, "label": label, "value": value}
    return conn.execute(_SQL["named"], values).fetchone() is not None


def largest(conn: Connection[Any], workspace_id: str, label: str, since: dt.datetime, limit: int) -> list[str]:
    """The values of a label that cost most since a moment (a quarter-hour), the most expensive one first.

    No value cost more since then than in all. So values are looked up from the largest total down, until no further one can
    be among those that are found.
    """
    given = {"workspace_id": workspace_id, "label": label, "since": since}
    found: dict[str, int] = {}
    count = LOOKED_UP_FIRST
    while True:
        rows = conn.execute(_SQL["spent_since"], {**given, "skipped": len(found), "limit": count}).fetchall()
        found |= {value: money.from_numeric_text(spent) for value, _, spent in rows}
        best = sorted(found, key=lambda value: (-found[value], value))[:limit]
        if len(rows) < count or found[best[-1]] > money.from_numeric_text(rows[-1][1]):
            return best
        count *= LOOKED_UP_TIMES


def at_edges(
    conn: Connection[Any], workspace_id: str, label: str, values: list[str], edges: list[dt.datetime]
) -> dict[str, list[tuple[int, int]]]:
    """Running totals (usages, picodollars) of values before each of some moments (quarter-hours)."""
    totals = {value: [(0, 0)] * len(edges) for value in values}
    given = {"workspace_id": workspace_id, "label": label, "values": values, "edges": edges}
    for place, value, usages, cost in conn.execute(_SQL["at_edges"], given):
        totals[value][place - 1] = (usages, money.from_numeric_text(cost))
    return totals


def stretches(
    conn: Connection[Any], label: str, value: str, span: dict[str, Any], *, newest: bool, limit: int
) -> list[tuple[int, int]]:
    """The next stretches, first and last number, that hold a usage with the value; `span` as a filter's parameters."""
    given = {**span, "label": label, "value": value, "limit": limit}
    return conn.execute(_STRETCHES["DESC" if newest else "ASC"], given).fetchall()


def within(
    conn: Connection[Any], found: list[tuple[int, int]], span: dict[str, Any], *, newest: bool, limit: int
) -> list[tuple[int, int]]:
    """Number and cost (picodollars) of the matches within stretches, in order; `span` as a filter's parameters."""
    given = {**span, "firsts": [first for first, _ in found], "lasts": [last for _, last in found], "limit": limit}
    return [
        (seq, money.from_numeric_text(cost)) for seq, cost in conn.execute(_WITHIN["DESC" if newest else "ASC"], given)
    ]
