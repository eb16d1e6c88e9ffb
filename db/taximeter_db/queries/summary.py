"""A workspace at a glance."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
from psycopg import Connection
from sqlalchemy import bindparam, select, true

from taximeter_db import money
from taximeter_db.core import Statement
from taximeter_db.models.ledger import Workspace
from taximeter_db.sql import statements

_SUMMARY = Statement(
    select(
        Workspace.workspace_id,
        Workspace.balance,
        Workspace.minimum_balance,
        Workspace.low_balance_threshold,
        Workspace.usage_count,
        Workspace.usage_cost,
        Workspace.payment_count,
        Workspace.payment_total,
        Workspace.version,
        Workspace.updated_at,
        true(),  # it is known
    ).where(Workspace.workspace_id == bindparam("workspace_id"))
)
_GLANCES = statements("page_workspaces")["glances"]
_VERSIONS = statements("page_workspaces")["versions"]


class Summary(msgspec.Struct, frozen=True):
    """Balance, limits and totals of a workspace. Amounts in picodollars; `known` is False if it was never seen."""

    workspace_id: str
    balance: int = 0
    minimum: int = money.MINIMUM_BALANCE_DEFAULT
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
    row = _SUMMARY.first(conn, workspace_id=workspace_id)
    return Summary(workspace_id) if row is None else Summary(*row)


def glances(conn: Connection[Any], among: list[str] | None, after: str = "", limit: int = 50) -> list[Glance]:
    """The next workspaces by id, all of them or those `among` a list."""
    rows = conn.execute(_GLANCES, {"among": among, "after": after, "limit": limit})
    number = money.from_numeric_text
    return [Glance(name, number(balance), number(minimum), number(low)) for name, balance, minimum, low in rows]


def versions(conn: Connection[Any], workspace_ids: list[str]) -> dict[str, tuple[int, int, int]]:
    """Version, usage count and payment count of workspaces, to notice what changed."""
    return {row[0]: row[1:] for row in conn.execute(_VERSIONS, {"workspace_ids": workspace_ids})}
