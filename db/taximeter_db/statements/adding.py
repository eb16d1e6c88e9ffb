"""Adds up a month: from the rollups where they are exact, else from the log, and checked against the running balance."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from psycopg import Connection

from taximeter_db import money
from taximeter_db.errors import StatementError
from taximeter_db.ledger import rollups
from taximeter_db.queries import usages
from taximeter_db.sql import statements
from taximeter_db.statements.terms import LINES_MAX, Kind, Line, Lines, Period

SQL: Final = statements("statements")
_SLOT_MINUTES: Final = 15


class Entries(msgspec.Struct, frozen=True):
    """The numbers of usages and payments of a month, and the balance (picodollars) before them."""

    usage_first: int
    usage_last: int
    payment_first: int
    payment_last: int
    opening: int


class Rolled(msgspec.Struct):
    """What the rollups hold of a month, and how far they and the log reach: all of one moment.

    `names` has usages and cost by tool and model, `users` by user.
    """

    usage_count: int = 0
    payment_count: int = 0
    names_reached: int = 0
    users_reached: int = 0
    names: dict[tuple[str, str], tuple[int, int]] = {}
    users: dict[tuple[str, str], tuple[int, int]] = {}


def rolled_up(conn: Connection[Any], workspace_id: str, period: Period) -> Rolled:
    """What the rollups hold of a month."""
    values = {
        "workspace_id": workspace_id,
        "since": period.starts_at,
        "until": period.ends_at,
        "user": rollups.USER,
    }
    found = Rolled()
    for what, name, other, number, text in conn.execute(SQL["rolled_up"], values):
        if what == "state":
            found.usage_count, found.payment_count = int(name), int(other)
            found.names_reached, found.users_reached = number, int(text)
        else:
            (found.names if what == "name" else found.users)[name, other] = (number, money.from_numeric_text(text))
    return found


def add_up(
    conn: Connection[Any], workspace_id: str, period: Period, entries: Entries, rolled: Rolled
) -> tuple[int, int, int, Lines]:
    """Payments, usage and closing balance of a month, in picodollars, and its lines.

    Raises:
        StatementError: The log does not add up to the balance that it carries.
    """
    closing = _balance(conn, workspace_id, period, entries)
    kinds = _kinds(conn, workspace_id, entries)
    payments = sum(kind.amount for kind in kinds)
    usage = entries.opening + payments - closing
    counted = entries.usage_last - entries.usage_first + 1
    names, users = _by_rollups(conn, workspace_id, period, entries, rolled)
    if names is None or users is None or _sums(names) != (counted, usage):
        names, users = _logged(conn, workspace_id, period, entries.usage_first, entries.usage_last)
    if _sums(names) != (counted, usage):
        raise StatementError(
            f"The log of {workspace_id} does not add up in {period.name}: by its balances the usage is"
            f" {money.format_usd(usage)} USD, its {counted} usages sum to {money.format_usd(_sums(names)[1])} USD. Run"
            " `taximeter verify`, which names the entry."
        )
    of_users = _sums(users)
    by_user = [Line(name, *sums) for (name, _), sums in users.items()]
    if counted > of_users[0]:
        by_user.append(Line(None, counted - of_users[0], usage - of_users[1], names=0))
    return payments, usage, closing, Lines(kinds, _by(names, 0), _by(names, 1), _largest(by_user))


def _balance(conn: Connection[Any], workspace_id: str, period: Period, entries: Entries) -> int:
    """The balance after the month's last entry."""
    values = {
        "workspace_id": workspace_id,
        "usage_last": entries.usage_last,
        "payment_last": entries.payment_last,
        "since": period.starts_at,
    }
    row = conn.execute(SQL["balance"], values).fetchone()
    return entries.opening if row is None else money.from_numeric_text(row[0])


def _kinds(conn: Connection[Any], workspace_id: str, entries: Entries) -> tuple[Kind, ...]:
    values = {
        "workspace_id": workspace_id,
        "payment_first": entries.payment_first,
        "payment_last": entries.payment_last,
    }
    return tuple(
        Kind(kind, count, money.from_numeric_text(text)) for kind, count, text in conn.execute(SQL["kinds"], values)
    )


_Sums = dict[tuple[str, str], tuple[int, int]]


def _by_rollups(
    conn: Connection[Any], workspace_id: str, period: Period, entries: Entries, rolled: Rolled
) -> tuple[_Sums | None, _Sums | None]:
    """What the rollups say, with the end of the month that they have not reached yet; None where they are not exact."""
    edges = [edge.astimezone(dt.UTC) for edge in (period.starts_at, period.ends_at)]
    if any(edge.minute % _SLOT_MINUTES or edge.second or edge.microsecond for edge in edges):
        return None, None
    if any(rollups.OTHER in name for name in (*rolled.names, *rolled.users)):
        return None, None
    names, users = dict(rolled.names), dict(rolled.users)
    tail = (min(rolled.names_reached, rolled.users_reached), max(rolled.names_reached, rolled.users_reached))
    if tail[0] != tail[1]:
        return None, None  # they are brought up together but for a moment
    first = max(entries.usage_first, tail[0] + 1)
    if first <= entries.usage_last:
        for known, more in zip(
            (names, users), _logged(conn, workspace_id, period, first, entries.usage_last), strict=True
        ):
            for name, (count, cost) in more.items():
                before = known.get(name, (0, 0))
                known[name] = (before[0] + count, before[1] + cost)
    return names, users


def _logged(conn: Connection[Any], workspace_id: str, period: Period, first: int, last: int) -> tuple[_Sums, _Sums]:
    """By tool and model, and by user, as the log has it."""
    values = {"workspace_id": workspace_id, "first": first, "last": last, "since": period.starts_at}
    names: _Sums = {}
    users: _Sums = {}
    if first <= last:
        for what, name, other, count, text in conn.execute(SQL["logged"], values):
            (names if what == "name" else users)[name, other] = (count, money.from_numeric_text(text))
    return names, users


def _sums(sums: _Sums) -> tuple[int, int]:
    return sum(count for count, _ in sums.values()), sum(cost for _, cost in sums.values())


def _by(names: _Sums, place: int) -> tuple[Line, ...]:
    """By tool (0) or by model (1)."""
    sums: dict[str, tuple[int, int]] = {}
    for name, (count, cost) in names.items():
        before = sums.get(name[place], (0, 0))
        sums[name[place]] = (before[0] + count, before[1] + cost)
    return _largest([Line(name or None, *both, names=int(bool(name))) for name, both in sums.items()])


def _largest(lines: Iterable[Line]) -> tuple[Line, ...]:
    """The most expensive first; those beyond `LINES_MAX` in one line, and what names nobody last."""
    named = sorted((line for line in lines if line.names), key=lambda line: (-line.cost, line.name or ""))
    rest = [line for line in lines if not line.names]
    further = named[LINES_MAX:]
    if further:
        rest.append(
            Line(None, sum(line.usages for line in further), sum(line.cost for line in further), names=len(further))
        )
    return (*named[:LINES_MAX], *rest)


def ends(conn: Connection[Any], workspace_id: str, moment: dt.datetime) -> tuple[int, int]:
    """The last usage and the last payment that were recorded before a moment; 0 where there is none."""
    row = conn.execute(SQL["payment_seq_at"], {"workspace_id": workspace_id, "moment": moment}).fetchone()
    payment = int(row[0]) if row and row[0] is not None else 1
    return usages.seq_at(conn, workspace_id, moment) - 1, payment - 1
