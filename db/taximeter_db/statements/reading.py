"""Statements as they are asked for: closed months as they were stored, the present month as far as it has come."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

from psycopg import Connection
from sqlalchemy import bindparam, select
from sqlalchemy.dialects.postgresql import insert as upsert

from taximeter_db import access
from taximeter_db.core import Row
from taximeter_db.core import Statement as Sql
from taximeter_db.errors import NotFoundError, SettingsError
from taximeter_db.models import statements as models
from taximeter_db.models.base import Id
from taximeter_db.queries import payments
from taximeter_db.queries.payments import PaymentRow
from taximeter_db.statements import adding, pdf
from taximeter_db.statements.terms import UTC, Period, Statement, following, from_json, to_json

CLOSED_MAX: Final = 120
"""Months that one call closes: ten years."""
PAYMENTS_MAX: Final = 1_000
"""Payments that a statement lists one by one."""
_T = models.Statement
_ID = bindparam("workspace_id", type_=Id)
_SUMS = (
    *("opening", "payments", "usage", "closing"),
    *("usage_first", "usage_last", "payment_first", "payment_last"),
)
_COLUMNS = (
    *(_T.number, _T.month, _T.zone, _T.starts_at, _T.ends_at),
    *(getattr(_T, name) for name in _SUMS),
    *(_T.lines, _T.closed_at),
)
_NAMES = [column.key for column in _COLUMNS[:-1]]
_NEWEST = Sql(
    select(*_COLUMNS)
    .where(_T.workspace_id == _ID, _T.number < bindparam("before"))
    .order_by(_T.number.desc())
    .limit(bindparam("limit"))
)
_OF_MONTH = Sql(select(*_COLUMNS).where(_T.workspace_id == _ID, _T.month == bindparam("month")))
_STORE = Sql(upsert(_T).values(workspace_id=_ID, **{name: bindparam(name) for name in _NAMES}).on_conflict_do_nothing())
_OLDEST = Sql(select(_T.month).where(_T.workspace_id == _ID, _T.number == 1))
_ZONE = Sql(select(models.StatementZone.zone).where(models.StatementZone.workspace_id == _ID))
_SET_ZONE = Sql(
    upsert(models.StatementZone)
    .values(workspace_id=_ID, zone=bindparam("zone"))
    .on_conflict_do_update(index_elements=["workspace_id"], set_={"zone": bindparam("zone")})
)
_ALL: Final = 2**62


def zone(conn: Connection[Any], workspace_id: str) -> str:
    """In which time zone a workspace's months begin."""
    return str(_ZONE.scalar(conn, workspace_id=workspace_id) or UTC)


def set_zone(conn: Connection[Any], workspace_id: str, name: str, *, by: str) -> None:
    """Let the months of a workspace begin in another time zone: the present one ends in it, those before stay.

    Raises:
        SettingsError: There is no such zone.
    """
    if not name.isprintable() or conn.execute(adding.SQL["zone"], {"zone": name}).fetchone() is None:
        raise SettingsError(f"{name[:64]!r} is not a time zone. Give a name such as UTC or Europe/Berlin.")
    with conn.transaction():
        close(conn, workspace_id)
        before = zone(conn, workspace_id)
        _SET_ZONE.run(conn, workspace_id=workspace_id, zone=name)
        if before != name:
            access.log_change(conn, workspace_id, by, "zone", before, name)


def due(conn: Connection[Any], *, after: str = "", limit: int = 500) -> list[str]:
    """The next workspaces by id of which a month is over and not closed."""
    return [row[0] for row in conn.execute(adding.SQL["due"], {"after": after, "limit": limit})]


def close(conn: Connection[Any], workspace_id: str) -> int:
    """Close the months of a workspace that are over, in their order; returns how many.

    Whoever asks first closes them: what a closed month holds follows from the log alone, and nothing can be booked into it any
    more. Two at once make the same statement, and one of them is stored.

    Raises:
        StatementError: A month does not add up; those before it are closed.
    """
    done = 0
    for _ in range(CLOSED_MAX):
        with conn.transaction():
            period, now, last = _next(conn, workspace_id)
            if period is None or now < period.ends_at:
                break
            conn.execute(adding.SQL["pass"], {"workspace_id": workspace_id, "moment": period.ends_at})
            statement = _make(conn, workspace_id, period, last, over=True)
            done += _store(conn, statement)
    return done


def present(conn: Connection[Any], workspace_id: str) -> Statement | None:
    """The month that runs, as far as it has come; None for a workspace without an entry. Months that are over are closed."""
    close(conn, workspace_id)
    period, _, last = _next(conn, workspace_id)
    return None if period is None else _make(conn, workspace_id, period, last, over=False)


def closed(conn: Connection[Any], workspace_id: str, *, before: int = _ALL, limit: int = 24) -> list[Statement]:
    """Closed months, newest first, those with a number below `before`."""
    rows = _NEWEST.all(conn, workspace_id=workspace_id, before=before, limit=limit)
    return [_statement(workspace_id, row) for row in rows]


def read(conn: Connection[Any], workspace_id: str, month: dt.date) -> Statement:
    """The statement of a month. Months that are over are closed on the way.

    Raises:
        NotFoundError: The workspace had no entry by then, or the month has not begun.
        StatementError: It does not add up.
    """
    row = _OF_MONTH.first(conn, workspace_id=workspace_id, month=month)
    statement = None
    if row is None:
        statement = present(conn, workspace_id)
        if statement is not None and statement.period.month == month:
            return statement
        row = _OF_MONTH.first(conn, workspace_id=workspace_id, month=month)
    if row is not None:
        return _statement(workspace_id, row)
    raise NotFoundError(
        f"Workspace {workspace_id} has no statement of {month:%Y-%m}: "
        + ("nothing was ever booked for it." if statement is None else _span(conn, statement))
    )


def as_pdf(conn: Connection[Any], statement: Statement) -> bytes:
    """A statement as PDF, with its payments one by one, up to `PAYMENTS_MAX`.

    Raises:
        StatementError: The extra ``pdf`` is not installed.
    """
    return pdf.statement(statement, one_by_one(conn, statement))


def one_by_one(conn: Connection[Any], statement: Statement) -> list[PaymentRow]:
    """The first `PAYMENTS_MAX` payments of a statement."""
    last = min(statement.payment_last, statement.payment_first + PAYMENTS_MAX - 1)
    return payments.between(conn, statement.workspace_id, statement.payment_first, last)


def _span(conn: Connection[Any], running: Statement) -> str:
    first = _OLDEST.scalar(conn, workspace_id=running.workspace_id)
    since = running.period.month if first is None else first
    return f"there are those from {since:%Y-%m} to {running.period.name}, in {running.period.zone}."


def _next(conn: Connection[Any], workspace_id: str) -> tuple[Period | None, dt.datetime, Statement | None]:
    """The first month that is not closed, the present moment, and the statement before; None without any entry."""
    before = closed(conn, workspace_id, limit=1)
    where = zone(conn, workspace_id)
    if before:
        last = before[0].period
        number, month, begins = last.number + 1, following(last.month), last.ends_at
    else:
        row = conn.execute(adding.SQL["first_month"], {"workspace_id": workspace_id, "zone": where}).fetchone()
        if row is None or row[0] is None:
            return None, dt.datetime.now(dt.UTC), None
        number, month, begins = 1, row[0], None
    [span] = conn.execute(adding.SQL["month"], {"month": month, "zone": where}).fetchall()
    return Period(number, month, where, begins or span[0], span[1]), span[2], before[0] if before else None


def _make(
    conn: Connection[Any], workspace_id: str, period: Period, before: Statement | None, *, over: bool
) -> Statement:
    rolled = adding.rolled_up(conn, workspace_id, period)
    last = adding.ends(conn, workspace_id, period.ends_at) if over else (rolled.usage_count, rolled.payment_count)
    first = (1, 1) if before is None else (before.usage_last + 1, before.payment_last + 1)
    opening = 0 if before is None else before.closing
    entries = adding.Entries(first[0], last[0], first[1], last[1], opening)
    payments, usage, closing, lines = adding.add_up(conn, workspace_id, period, entries, rolled)
    return Statement(
        *(workspace_id, period, opening, payments, usage, closing),
        *(entries.usage_first, entries.usage_last, entries.payment_first, entries.payment_last),
        lines,
    )


def _store(conn: Connection[Any], made: Statement) -> int:
    period = made.period
    return _STORE.run(
        conn,
        workspace_id=made.workspace_id,
        number=period.number,
        month=period.month,
        zone=period.zone,
        starts_at=period.starts_at,
        ends_at=period.ends_at,
        lines=to_json(made.lines),
        **{name: getattr(made, name) for name in _SUMS},
    )


def _statement(workspace_id: str, row: Row) -> Statement:
    (number, month, where, starts_at, ends_at), sums, (lines, closed_at) = row[:5], row[5:-2], row[-2:]
    return Statement(
        workspace_id=workspace_id,
        period=Period(number, month, where, starts_at, ends_at),
        lines=from_json(lines),
        closed_at=closed_at,
        **dict(zip(_SUMS, sums, strict=True)),
    )
