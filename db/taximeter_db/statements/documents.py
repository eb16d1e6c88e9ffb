"""A statement for machines: the members of its JSON document, and its rows as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any, Final

from taximeter_db.money import format_usd
from taximeter_db.queries.copying import safe_cell
from taximeter_db.statements.terms import Line, Statement

CSV_HEADER: Final = ("workspace_id", "month", "number", "section", "name", "count", "amount_usd")


def head(statement: Statement) -> dict[str, Any]:
    """What a list shows of a statement; amounts as decimal strings."""
    period = statement.period
    return {
        "month": period.name,
        "number": period.number,
        "final": statement.closed_at is not None,
        "closed_at": statement.closed_at,
        "zone": period.zone,
        "starts_at": period.starts_at,
        "ends_at": period.ends_at,
        "opening": format_usd(statement.opening),
        "payments": format_usd(statement.payments),
        "usage": format_usd(statement.usage),
        "closing": format_usd(statement.closing),
        "payment_count": statement.payment_count,
        "usage_count": statement.usages,
    }


def body(statement: Statement) -> dict[str, Any]:
    """The whole statement: opening + payments - usage = closing, and each of the three splits of usage sums to usage."""
    lines = statement.lines
    return {
        "workspace_id": statement.workspace_id,
        **head(statement),
        "payments_by_kind": [
            {"kind": kind.kind, "count": kind.count, "amount": format_usd(kind.amount)} for kind in lines.kinds
        ],
        "usage_by_tool": _split(lines.tools),
        "usage_by_model": _split(lines.models),
        "usage_by_user": _split(lines.users),
    }


def _split(lines: Iterable[Line]) -> list[dict[str, Any]]:
    return [
        {"name": line.name, "names": line.names, "usages": line.usages, "cost": format_usd(line.cost)} for line in lines
    ]


def as_csv(statement: Statement) -> bytes:
    """The statement as CSV in UTF-8: a row for each line, the opening balance first and the closing one last.

    Text cells never begin a formula. Amounts are bare decimals; those of usage are what it cost, to be subtracted.
    """
    lines = statement.lines
    first = (statement.workspace_id, statement.period.name, statement.period.number)
    rows: list[tuple[str, str, int | str, int]] = [("opening", "", "", statement.opening)]
    rows += [("payments", kind.kind, kind.count, kind.amount) for kind in lines.kinds]
    for section, split in (
        ("usage_by_tool", lines.tools),
        ("usage_by_model", lines.models),
        ("usage_by_user", lines.users),
    ):
        rows += [(section, safe_cell(words(line)), line.usages, line.cost) for line in split]
    rows.append(("closing", "", "", statement.closing))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    writer.writerows((*first, section, name, count, format_usd(amount)) for section, name, count, amount in rows)
    return text.getvalue().encode()


def words(line: Line) -> str:
    """A line's name for people."""
    if line.name is not None:
        return line.name
    return f"({line.names:,} others)" if line.names else "(not named)"
