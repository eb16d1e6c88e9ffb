"""A workspace at a glance."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
from psycopg import Connection

from taximeter_db import money

_SUMMARY = """
SELECT balance::text, minimum_balance::text, low_balance_threshold::text, usage_count, usage_cost::text,
       payment_count, payment_total::text, version, updated_at
FROM taximeter.workspaces WHERE workspace_id = %s
"""
_IDS = """
SELECT workspace_id, balance::text, minimum_balance::text, low_balance_threshold::text
FROM taximeter.page_workspaces(%(among)s::text[], %(after)s, %(limit)s) ORDER BY workspace_id COLLATE "C"
"""
_WATCH = """
SELECT workspace_id, version, usage_count, payment_count FROM taximeter.page_versions(%s::text[])
"""
DEFAULT_MINIMUM = -120_000_000_000
"""Minimum balance of a workspace that was never seen, in picodollars, where the platform sets no other."""


class Summary(msgspec.Struct, frozen=True):
    """Balance, limits and totals of a workspace. Amounts in picodollars; `known` is False if it was never seen."""

    workspace_id: str
    balance: int = 0
    minimum: int = DEFAULT_MINIMUM
    low: int = 0
    usage_count: int = 0
    usage_cost: int = 0
    payment_count: int = 0
    payment_total: int = 0
    version: int = 0
    updated_at: dt.datetime | None = None
    known: bool = False

    @property
    def status(self) -> str:
        """``sufficient``, ``low`` or ``insufficient``."""
        return money.status_of(self.balance, self.minimum, self.low)

    @property
    def enabled(self) -> bool:
        """Whether AI is enabled."""
        return self.balance >= self.minimum


class Glance(msgspec.Struct, frozen=True):
    """A line of the list of workspaces. Balance, minimum and threshold in picodollars."""

    workspace_id: str
    balance: int
    minimum: int
    low: int

    @property
    def status(self) -> str:
        """As the summary's."""
        return money.status_of(self.balance, self.minimum, self.low)


def read(conn: Connection[Any], workspace_id: str) -> Summary:
    """The workspace's summary; one that was never seen has balance 0 and is enabled. One index look-up."""
    row = conn.execute(_SUMMARY, [workspace_id]).fetchone()
    if row is None:
        return Summary(workspace_id)
    balance, minimum, low, usage_count, usage_cost, payment_count, payment_total, version, updated_at = row
    number = money.from_numeric_text
    return Summary(
        workspace_id=workspace_id,
        balance=number(balance),
        minimum=number(minimum),
        low=number(low),
        usage_count=usage_count,
        usage_cost=number(usage_cost),
        payment_count=payment_count,
        payment_total=number(payment_total),
        version=version,
        updated_at=updated_at,
        known=True,
    )


def glances(conn: Connection[Any], among: list[str] | None, after: str = "", limit: int = 50) -> list[Glance]:
    """The next workspaces by id, all of them or those `among` a list."""
    found = conn.execute(_IDS, {"among": among, "after": after, "limit": limit}).fetchall()
    number = money.from_numeric_text
    return [Glance(name, number(balance), number(minimum), number(low)) for name, balance, minimum, low in found]


def versions(conn: Connection[Any], workspace_ids: list[str]) -> dict[str, tuple[int, int, int]]:
    """Version, usage count and payment count of workspaces, to notice what changed."""
    return {row[0]: row[1:] for row in conn.execute(_WATCH, [workspace_ids])}
