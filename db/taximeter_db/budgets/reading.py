"""Reading budgets: their terms, where they stand now, and when they were crossed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from psycopg import Connection
from sqlalchemy import BindParameter, Text, any_, bindparam, or_, select
from sqlalchemy.dialects.postgresql import ARRAY

from taximeter_db import server_time
from taximeter_db.budgets import standing
from taximeter_db.budgets.standing import Standing
from taximeter_db.budgets.terms import Terms, is_name
from taximeter_db.core import Row, Statement
from taximeter_db.models.base import Id
from taximeter_db.models.budgets import Budget, BudgetCrossing
from taximeter_db.money import format_usd, from_numeric_text
from taximeter_db.sql import statements

LIST_MAX = 1_000
_SQL = statements("budgets")
_ID: BindParameter[str] = bindparam("workspace_id", type_=Id)
_TERMS = (
    *(Budget.workspace_id, Budget.name, Budget.amount, Budget.period, Budget.hours, Budget.zone, Budget.user_id),
    *(Budget.tool, Budget.model, Budget.tag, Budget.tag_value, Budget.hard, Budget.thresholds),
)
_FIND = Statement(select(*_TERMS).where(Budget.workspace_id == _ID, Budget.name == bindparam("name", type_=Id)))
_LIST = Statement(
    select(*_TERMS)
    .where(Budget.workspace_id == _ID, Budget.name > bindparam("after", type_=Id))
    .order_by(Budget.name)
    .limit(bindparam("limit"))
)
_USED_UP = Statement(
    select(Budget.name)
    .where(
        Budget.workspace_id == _ID,
        Budget.hard,
        Budget.exceeded,
        *(
            or_(column.is_(None), column == bindparam(column.key, type_=Id))
            for column in (Budget.user_id, Budget.tool, Budget.model)
        ),
        or_(
            Budget.tag.is_(None),
            (Budget.tag + "=" + Budget.tag_value) == any_(bindparam("tags", type_=ARRAY(Text))),
        ),
    )
    .order_by(Budget.name)
    .limit(1)
)
_CROSSINGS = Statement(
    select(
        BudgetCrossing.crossed_at,
        BudgetCrossing.name,
        BudgetCrossing.kind,
        BudgetCrossing.percent,
        BudgetCrossing.spent,
        BudgetCrossing.amount,
        BudgetCrossing.hard,
        BudgetCrossing.cause,
        BudgetCrossing.cause_id,
    )
    .where(BudgetCrossing.workspace_id == _ID)
    .order_by(BudgetCrossing.id.desc())
    .limit(bindparam("limit"))
)


class BudgetNow(msgspec.Struct, frozen=True):
    """A budget and where it stands now. `spent` in picodollars; `ends_at` None: its period has no end that is known."""

    terms: Terms
    spent: int
    usages: int
    began_at: dt.datetime | None
    ends_at: dt.datetime | None

    @property
    def exceeded(self) -> bool:
        """Whether the limit is used up."""
        return self.spent >= self.terms.limit

    @property
    def percent(self) -> int:
        """The part of the limit that is spent, rounded down."""
        return self.spent * 100 // self.terms.limit if self.terms.limit else 100

    @property
    def state(self) -> str:
        """``exceeded``, ``warned`` (a threshold is reached) or ``within``."""
        if self.exceeded:
            return standing.EXCEEDED
        return standing.WARNED if self.percent >= min(self.terms.thresholds) else "within"

    def members(self) -> dict[str, Any]:
        """What command line and API say of a budget, but for when its period began and ends. Amounts are exact texts in USD."""
        terms = self.terms
        return {
            "name": terms.name,
            "limit": format_usd(terms.limit),
            "period": terms.period_text,
            "zone": terms.zone,
            "user": terms.user,
            "tool": terms.tool,
            "model": terms.model,
            "tag": None if terms.tag is None else "=".join(terms.tag),
            "soft": not terms.hard,
            "thresholds": list(terms.thresholds),
            "spent": format_usd(self.spent),
            "usages": self.usages,
            "percent": self.percent,
            "state": self.state,
        }


class CrossingRow(msgspec.Struct, frozen=True):
    """A crossing as it was logged, see `standing.Crossing`."""

    crossed_at: dt.datetime
    name: str
    kind: str
    percent: int
    spent: int
    limit: int
    hard: bool
    cause: str
    cause_id: str | None


class Refusal(msgspec.Struct, frozen=True):
    """A time in which a hard budget refused the calls that it concerns; `ended_at` None: it lasts.

    `spent` and `limit` in picodollars, at its begin; `cause` and `cause_id` as of a crossing.
    """

    name: str
    begun_at: dt.datetime
    ended_at: dt.datetime | None
    spent: int
    limit: int
    cause: str
    cause_id: str | None


def find(conn: Connection[Any], workspace_id: str, name: str) -> BudgetNow | None:
    """A budget and where it stands; None if there is none of this name."""
    row = _FIND.first(conn, workspace_id=workspace_id, name=name) if is_name(name) else None
    return None if row is None else _now(conn, [_of_row(row)])[0]


def list_budgets(
    conn: Connection[Any], workspace_id: str, *, after: str = "", limit: int = LIST_MAX
) -> list[BudgetNow]:
    """A workspace's budgets by name, the next ones after a name, and where they stand."""
    rows = _LIST.all(conn, workspace_id=workspace_id, after=after, limit=min(limit, LIST_MAX))
    return _now(conn, [_of_row(row) for row in rows])


def used_up(
    conn: Connection[Any],
    workspace_id: str,
    *,
    user: str | None = None,
    tool: str | None = None,
    model: str | None = None,
    tags: Sequence[str] = (),
) -> str | None:
    """The name of a hard budget that is used up and concerns a call of which this is known; tags as ``KEY=VALUE``."""
    return _USED_UP.scalar(  # type: ignore[no-any-return]
        conn, workspace_id=workspace_id, user_id=user, tool=tool, model=model, tags=list(tags)
    )


def crossings(conn: Connection[Any], workspace_id: str, limit: int = 50) -> list[CrossingRow]:
    """The newest crossings of a workspace's budgets."""
    return [CrossingRow(*row) for row in _CROSSINGS.all(conn, workspace_id=workspace_id, limit=limit)]


def refusals(conn: Connection[Any], workspace_id: str, since: dt.datetime, limit: int = 50) -> list[Refusal]:
    """When hard budgets refused calls, as far as it lasted until `since` or later; the newest first."""
    values = {"workspace_id": workspace_id, "since": since, "limit": limit}
    return [
        Refusal(name, begun, ended, from_numeric_text(spent), from_numeric_text(amount), cause, cause_id)
        for name, begun, ended, spent, amount, cause, cause_id in conn.execute(_SQL["refusals"], values)
    ]


def _of_row(row: Row) -> Terms:
    *given, tag, value, hard, thresholds = row
    return Terms(*[*given, None if tag is None else (tag, value), hard, tuple(thresholds)])


def _now(conn: Connection[Any], budgets: list[Terms]) -> list[BudgetNow]:
    moment = server_time.now(conn)
    keys = {(terms.workspace_id, terms.name): terms for terms in budgets}
    moments: Mapping[str, int] = dict.fromkeys({terms.workspace_id for terms in budgets}, moment)
    standings = {known.key: known for known in standing.read(conn, keys, moments)}
    return [_stands(terms, standings[key]) for key, terms in keys.items() if key in standings]


def _stands(terms: Terms, known: Standing) -> BudgetNow:
    total = terms.period == "total"
    ends_at = None if known.rolling else known.ends_at
    return BudgetNow(terms, known.spent, known.usages, None if total else known.window_start, ends_at)
