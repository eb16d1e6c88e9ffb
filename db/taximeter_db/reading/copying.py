"""The logs as CSV, made by PostgreSQL itself, a window of numbers at a time: for exports of any size.

Amounts are bare exact decimals, times in UTC to the microsecond. Text that a spreadsheet would take for a formula gets an
apostrophe in front, unless the text is asked for as it is.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from psycopg import Connection

from taximeter_db.reading.filtered import Filter

WINDOW_ROWS: Final = 10_000

# Where a cell begins: at the start, and after what a spreadsheet set to another separator cuts at. In full width too,
# which some spreadsheets take for the plain signs. The regular expression runs only where it may find something.
_SIGNS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
_CUTS = ";|\t\r\n"
_SAFE = """CASE WHEN position(left({text}, 1) IN %(signs)s) > 0 OR translate({text}, %(cuts)s, '') <> {text}
THEN regexp_replace({text}, %(danger)s, '''', 'g') ELSE {text} END"""
_VALUES: Final = {
    "signs": _SIGNS,
    "cuts": _CUTS,
    "danger": f"(^|(?<=[{_CUTS}]))(?=[{_SIGNS.replace('-', '')}-])",
}
_TIME = """to_char({time} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


class Sheet(msgspec.Struct, frozen=True):
    """A log as a table: the columns' names, kinds (``text``, ``int``, ``time``, ``usd``) and expressions."""

    columns: tuple[tuple[str, str, str], ...]
    source: str

    @property
    def header(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(name for name, _, _ in self.columns)

    def statement(self, *, newest: bool, raw: bool) -> str:
        """The COPY of a window, in order."""
        cells = ", ".join(_cell(kind, expression, raw=raw) for _, kind, expression in self.columns)
        order = "DESC" if newest else "ASC"
        return f"COPY (SELECT {cells} FROM {self.source} ORDER BY seq {order}) TO STDOUT (FORMAT csv)"  # noqa: S608 - constants


USAGES: Final = Sheet(
    (
        ("seq", "int", "seq"),
        ("event_id", "text", "event_id"),
        ("recorded_at", "time", "recorded_at"),
        ("occurred_at", "time", "occurred_at"),
        ("tool", "text", "tool"),
        ("provider", "text", "provider"),
        ("model", "text", "model"),
        ("quantities", "json", "quantities::text"),
        ("cost_usd", "usd", "cost"),
        ("balance_after_usd", "usd", "balance_after"),
        ("price_version", "int", "abs(price_version)"),
        ("estimated", "bool", "(price_version < 0)::text"),
    ),
    """taximeter.usages WHERE workspace_id = %(workspace_id)s AND seq BETWEEN %(first)s AND %(last)s
    AND recorded_at >= %(since)s AND recorded_at < %(until)s
    AND (%(tool)s::text IS NULL OR tool = %(tool)s) AND (%(model)s::text IS NULL OR coalesce(model, '') = %(model)s)
    AND (%(cost_min)s::numeric IS NULL OR cost >= %(cost_min)s)
    AND (%(low)s::text IS NULL OR starts_with(event_id, %(low)s))""",
)
PAYMENTS: Final = Sheet(
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
    "taximeter.payments WHERE workspace_id = %(workspace_id)s AND seq BETWEEN %(first)s AND %(last)s",
)


def _cell(kind: str, expression: str, *, raw: bool) -> str:
    if kind == "time":
        return _TIME.replace("{time}", expression)
    if kind == "usd":
        return f"trim_scale({expression})"
    return _SAFE.replace("{text}", expression) if kind == "text" and not raw else expression


def window(
    conn: Connection[Any],
    sheet: Sheet,
    workspace_id: str,
    wanted: Filter,
    first: int,
    last: int,
    *,
    newest: bool,
    raw: bool,
) -> tuple[bytes, int]:
    """The rows of a window that match, as CSV, and how many they are; `raw` leaves formulas as they are."""
    values = {**wanted.parameters(workspace_id), **_VALUES, "first": first, "last": last}
    with conn.cursor() as cursor:
        with cursor.copy(sheet.statement(newest=newest, raw=raw), values) as copy:
            data = b"".join(bytes(part) for part in copy)
        return data, max(cursor.rowcount, 0)
