"""What an export would give, said before it begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from taximeter_dashboard.export import formats as export_formats
from taximeter_db.queries.payments import PaymentRow
from taximeter_db.queries.usages import UsageRow

_UNITS: Final = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


class Exporting(msgspec.Struct, frozen=True):
    """Of which log, how many rows, about how many bytes a row as CSV. `more` where counting the rows stopped."""

    log: str
    query: str
    rows: int
    more: bool
    row_bytes: int
    formats: tuple[str, ...]

    @property
    def rows_words(self) -> str:
        """``1,204 rows``."""
        return f"{'more than ' if self.more else ''}{self.rows:,} row{'' if self.rows == 1 else 's'}"

    @property
    def size_words(self) -> str:
        """``1.9 GB``; empty where nobody knows."""
        return "" if self.more or not self.rows else size(self.rows * self.row_bytes)


def size(count: int) -> str:
    """A number of bytes in two digits or so: ``1.9 GB``, ``480 kB``."""
    for unit, name in _UNITS:
        if count >= unit:
            tenths = count * 10 // unit
            return f"{tenths // 10}.{tenths % 10} {name}" if tenths < 100 else f"{tenths // 10:,} {name}"
    return f"{count} bytes"


def expect(
    log: str, rows: Sequence[UsageRow] | Sequence[PaymentRow], count: int, *, query: str = "", more: bool = False
) -> Exporting:
    """What an export would give, judged by the rows of a page."""
    lengths = [sum(len(str(one)) for one in msgspec.structs.astuple(row)) for row in rows]
    return Exporting(log, query, count, more, sum(lengths) // max(1, len(lengths)), export_formats.formats())
