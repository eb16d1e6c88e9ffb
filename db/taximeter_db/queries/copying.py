"""The logs as CSV, made by PostgreSQL itself, a window of numbers at a time: for exports of any size.

Amounts are bare exact decimals, times in UTC to the microsecond. Text that a spreadsheet would take for a formula gets an
apostrophe in front, unless the text is asked for as it is.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from psycopg import Connection

from taximeter_db.ledger import columns
from taximeter_db.queries.filtered import Filter
from taximeter_db.sql import statements

WINDOW_ROWS: Final = 10_000

# Where a cell begins: at the start, and after what a spreadsheet set to another separator cuts at. In full width too,
# which some spreadsheets take for the plain signs. The regular expression runs only where it may find something.
_SIGNS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
_CUTS = ";|\t\r\n"
_COPY = statements("copy_window")
_DANGER: Final = f"(^|(?<=[{_CUTS}]))(?=[{_SIGNS.replace('-', '')}-])"
_VALUES: Final = {"signs": _SIGNS, "cuts": _CUTS, "danger": _DANGER}


def safe_cell(text: str) -> str:
    """A text as the exports' CSV has it: with an apostrophe wherever a spreadsheet would see a formula begin."""
    return re.sub(_DANGER, "'", text)


class Sheet(msgspec.Struct, frozen=True):
    """A log as a table, with a COPY of its name: the columns' names, kinds (``text``, ``int``, ``time``, ``usd``) and expressions."""

    name: str
    columns: tuple[tuple[str, str, str], ...]

    @property
    def header(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(name for name, _, _ in self.columns)


class Layout(msgspec.Struct, frozen=True):
    """How a sheet is written: the newest or the oldest first; `raw` leaves formulas as they are."""

    sheet: Sheet
    newest: bool
    raw: bool

    def statement(self) -> str:
        """The COPY of a window, in order."""
        cells = ", ".join(_cell(kind, expression, raw=self.raw) for _, kind, expression in self.sheet.columns)
        return _COPY[self.sheet.name].replace("{cells}", cells).replace("{order}", "DESC" if self.newest else "ASC")


_OTHERWISE: Final = {
    "quantities": ("json", "quantities::text"),
    "price_version": ("int", "abs(price_version)"),
    "tags": ("text", "tags::text"),
}
"""The exported columns of usages that are more than the column: their kinds and expressions."""
USAGES: Final = Sheet(
    "usages",
    (
        *(
            (columns.exported_label(name), *_OTHERWISE.get(name, (columns.KINDS[name], name)))
            for name in columns.EXPORTED
        ),
        ("estimated", "bool", "(price_version < 0)::text"),
    ),
)
PAYMENTS: Final = Sheet(
    "payments",
    (
        ("seq", "int", "seq"),
        ("payment_id", "text", "payment_id"),
        ("recorded_at", "time", "recorded_at"),
        ("occurred_at", "time", "occurred_at"),
        ("kind", "text", "kind"),
        ("amount_usd", "usd", "amount"),
        ("balance_after_usd", "usd", "balance_after"),
        ("transaction_provider", "text", "(transaction ->> 'provider')"),
        ("transaction_reference", "text", "(transaction ->> 'reference')"),
        ("note", "text", "note"),
    ),
)


def _cell(kind: str, expression: str, *, raw: bool) -> str:
    if kind == "time":
        return _COPY["time_cell"].replace("{time}", expression)
    if kind == "usd":
        return f"trim_scale({expression})"
    return _COPY["text_cell"].replace("{text}", expression) if kind == "text" and not raw else expression


def window(
    conn: Connection[Any],
    layout: Layout,
    workspace_id: str,
    wanted: Filter,
    first: int,
    last: int,
) -> tuple[bytes, int]:
    """The rows from `first` to `last` that match, as CSV, and how many they are."""
    values = {**wanted.parameters(workspace_id), **_VALUES, "first": first, "last": last}
    with conn.cursor() as cursor:
        with cursor.copy(layout.statement(), values) as copy:
            data = b"".join(bytes(part) for part in copy)
        return data, max(cursor.rowcount, 0)
