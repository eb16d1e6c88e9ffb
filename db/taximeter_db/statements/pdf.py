"""Statements and receipts as PDF, for people who file them. Needs the extra ``pdf``.

The same closed statement is the same file, byte for byte. The fonts are those that every reader has, so letters beyond
Western European are written as their codes; page, CSV and JSON show them as they are.
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from taximeter_db import money
from taximeter_db.errors import StatementError
from taximeter_db.queries.payments import KINDS, PaymentRow
from taximeter_db.statements.documents import words
from taximeter_db.statements.terms import MONTHS, Line, Statement

if TYPE_CHECKING:
    from fpdf import FPDF

_MISSING: Final = "PDF is not installed here: pip install 'taximeter[pdf]'."
_LINE_MM: Final = 6
_INDENT_MM: Final = 4
Columns = Sequence[tuple[str, float, str]]
"""Of a table: each column's heading, its part of the width in percent, and its alignment, ``L`` or ``R``."""


def installed() -> bool:
    """Whether the library is there."""
    import importlib.util

    return importlib.util.find_spec("fpdf") is not None


def statement(made: Statement, payments: Sequence[PaymentRow]) -> bytes:
    """A statement with the payments that are to be listed one by one, as many as the caller read.

    Raises:
        StatementError: The extra is not installed.
    """
    period = made.period
    final = made.closed_at is not None
    at = made.closed_at or dt.datetime.now(dt.UTC)
    where = _zone(period.zone)
    page = _begin(f"Statement {made.title}" if final else f"Statement of {made.workspace_id}, {period.name}", at)
    month = f"{MONTHS[period.month.month - 1]} {period.month.year}"
    _title(page, f"Statement, {month}", None if final else "Not final: the month is not over.")
    _facts(
        page,
        [
            ("Workspace", made.workspace_id),
            ("Number", f"{period.number} ({made.title})" if final else "given when the month is closed"),
            ("Period", f"{_local(period.starts_at, where)} to {_local(period.ends_at, where)}, {period.zone}"),
            ("Closed" if final else "As of", _local(at, where)),
            ("Currency", "USD, exact to the last digit"),
        ],
    )
    _heading(page, "Account")
    columns: Columns = (("", 60, "L"), ("USD", 40, "R"))
    _table(
        page,
        columns,
        [
            ("Opening balance", exact(made.opening)),
            (f"Payments ({made.payment_count:,})", _signed(made.payments)),
            (f"Usage ({made.usages:,})", _signed(-made.usage)),
        ],
        total=("Closing balance", exact(made.closing)),
    )
    _heading(page, "Payments by kind")
    _table(
        page,
        (("Kind", 40, "L"), ("Payments", 20, "R"), ("USD", 40, "R")),
        [(KINDS[kind.kind], f"{kind.count:,}", _signed(kind.amount)) for kind in made.lines.kinds],
        total=("Together", f"{made.payment_count:,}", _signed(made.payments)),
    )
    for heading, lines in (
        ("Usage by tool", made.lines.tools),
        ("Usage by model", made.lines.models),
        ("Usage by user", made.lines.users),
    ):
        _usage(page, heading, lines, made)
    if payments:
        _heading(page, "Payments one by one")
        _table(
            page,
            (("Booked", 22, "L"), ("Kind", 14, "L"), ("Payment and reference", 40, "L"), ("USD", 24, "R")),
            [
                (_local(row.recorded_at, where), KINDS[row.kind], _reference(row), _signed(row.amount))
                for row in payments
            ],
        )
        if len(payments) < made.payment_count:
            page.set_font("Helvetica", size=9)
            left = made.payment_count - len(payments)
            page.multi_cell(0, _LINE_MM, _latin(f"{left:,} further payments are in the export of payments."))
    return bytes(page.output())


def receipt(workspace_id: str, row: PaymentRow, zone: str) -> bytes:
    """The receipt of a payment; times in a zone.

    Raises:
        StatementError: The extra is not installed.
    """
    where = _zone(zone)
    page = _begin(f"Receipt {workspace_id} {row.payment_id}", row.recorded_at)
    _title(page, "Receipt", None)
    given = row.transaction or {}
    facts = [
        ("Workspace", workspace_id),
        ("Payment", row.payment_id),
        ("Number", f"{row.seq:,}"),
        ("Kind", KINDS[row.kind]),
        ("Booked", f"{_local(row.recorded_at, where)}, {zone}"),
        ("Happened", f"{_local(row.occurred_at, where)}, {zone}"),
        *((name.replace("_", " ").capitalize(), str(text)) for name, text in given.items()),
    ]
    if row.note:
        facts.append(("Note", row.note))
    _facts(page, facts)
    _heading(page, "Amount")
    _table(
        page,
        (("", 60, "L"), ("USD", 40, "R")),
        [("Balance before", exact(row.balance_before)), (KINDS[row.kind], _signed(row.amount))],
        total=("Balance after", exact(row.balance_after)),
    )
    return bytes(page.output())


def exact(pico: int) -> str:
    """All digits, two decimals at least: ``-1,234.50``."""
    whole, _, fraction = money.format_usd(abs(pico)).partition(".")
    return f"{'-' if pico < 0 else ''}{int(whole):,}.{fraction.ljust(2, '0')}"


def _signed(pico: int) -> str:
    return f"+{exact(pico)}" if pico > 0 else exact(pico)


def _usage(page: FPDF, heading: str, lines: Sequence[Line], made: Statement) -> None:
    _heading(page, heading)
    _table(
        page,
        ((heading.rpartition(" ")[2].capitalize(), 50, "L"), ("Usages", 18, "R"), ("USD", 32, "R")),
        [(words(line), f"{line.usages:,}", exact(line.cost)) for line in lines],
        total=("Together", f"{made.usages:,}", exact(made.usage)),
    )


def _reference(row: PaymentRow) -> str:
    reference = (row.transaction or {}).get("reference")
    return f"{row.payment_id}\n{reference}" if reference else row.payment_id


def _zone(name: str) -> dt.tzinfo:
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return dt.UTC  # this machine has no data of zones; the times then say UTC themselves


def _local(moment: dt.datetime, where: dt.tzinfo) -> str:
    at = moment.astimezone(where)
    return f"{at:%Y-%m-%d %H:%M}" + (" UTC" if where is dt.UTC else "")


def _latin(text: str) -> str:
    """A text in the letters that the built-in fonts have; any other as its code."""
    return "".join(
        letter
        if letter == "\n" or (letter.isprintable() and ord(letter) < 256)
        else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


def _begin(title: str, at: dt.datetime) -> FPDF:
    try:
        from fpdf import FPDF
    except ImportError as error:
        raise StatementError(_MISSING) from error

    class Document(FPDF):
        def footer(self) -> None:
            self.set_y(-15)
            self.set_font("Helvetica", size=8)
            self.cell(0, 10, f"{_latin(title)}  -  page {self.page_no()} of {{nb}}", align="C")

    page = Document(format="A4")
    page.set_creation_date(at.astimezone(dt.UTC))
    page.set_title(title)
    page.set_lang("en")
    page.set_producer("Taximeter")
    page.set_auto_page_break(auto=True, margin=20)
    page.set_margin(20)
    page.add_page()
    return page


def _title(page: FPDF, text: str, remark: str | None) -> None:
    page.set_font("Helvetica", "B", 18)
    page.cell(0, 12, _latin(text), new_x="LMARGIN", new_y="NEXT")
    if remark:
        page.set_font("Helvetica", "I", 10)
        page.cell(0, _LINE_MM, _latin(remark), new_x="LMARGIN", new_y="NEXT")
    page.ln(2)


def _facts(page: FPDF, facts: Iterable[tuple[str, str]]) -> None:
    from fpdf.enums import WrapMode

    for name, text in facts:
        page.set_font("Helvetica", "B", 10)
        page.cell(32, _LINE_MM, _latin(name))
        page.set_font("Helvetica", size=10)
        page.multi_cell(0, _LINE_MM, _latin(text), new_x="LMARGIN", new_y="NEXT", wrapmode=WrapMode.CHAR, align="L")


def _heading(page: FPDF, text: str) -> None:
    page.ln(_INDENT_MM)
    if page.will_page_break(4 * _LINE_MM):  # no heading stands alone at the foot of a page
        page.add_page()
    page.set_font("Helvetica", "B", 12)
    page.cell(0, 8, _latin(text), new_x="LMARGIN", new_y="NEXT")


def _table(page: FPDF, columns: Columns, rows: Sequence[Sequence[str]], total: Sequence[str] | None = None) -> None:
    from fpdf.fonts import FontFace

    page.set_font("Helvetica", size=9)
    options: dict[str, Any] = {
        "col_widths": tuple(width for _, width, _ in columns),
        "text_align": tuple(align for _, _, align in columns),
        "borders_layout": "HORIZONTAL_LINES",
        "line_height": _LINE_MM,
        "headings_style": FontFace(emphasis="BOLD"),
        "wrapmode": "CHAR",
    }
    with page.table(**options) as table:
        table.row([_latin(heading) for heading, _, _ in columns])
        for cells in rows:
            table.row([_latin(cell) for cell in cells])
        if total is not None:
            table.row([_latin(cell) for cell in total], style=FontFace(emphasis="BOLD"))
