"""Windows of a log as a file: CSV as PostgreSQL makes it, or Parquet with exact decimals."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterator
from typing import Any, Final

from taximeter_db.queries.copying import Sheet

CSV: Final = "csv"
PARQUET: Final = "parquet"
MEDIA_TYPES: Final = {CSV: "text/csv; charset=utf-8", PARQUET: "application/vnd.apache.parquet"}
GROUP_ROWS: Final = 100_000
"""Rows in memory at a time, and in a row group of the file."""
Windows = Iterator[tuple[bytes, int]]


def formats() -> tuple[str, ...]:
    """What this installation can write: Parquet needs the extra of that name."""
    return (CSV, PARQUET) if importlib.util.find_spec("pyarrow") else (CSV,)


def as_csv(sheet: Sheet, windows: Windows) -> Windows:
    """The windows with the columns' names in front."""
    yield (",".join(sheet.header) + "\n").encode(), 0
    yield from windows


def as_parquet(sheet: Sheet, windows: Windows) -> Windows:
    """The windows as row groups. Amounts are decimal128(27, 12), times UTC microseconds, text as it was booked."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import csv

    kinds: dict[str, Any] = {
        "int": pa.int64(),
        "text": pa.string(),
        "json": pa.string(),
        "bool": pa.bool_(),
        "time": pa.timestamp("us", "UTC"),
        "usd": pa.decimal128(27, 12),
    }
    schema = pa.schema([(name, kinds[kind]) for name, kind, _ in sheet.columns])
    reading = csv.ReadOptions(column_names=list(sheet.header), use_threads=False)
    parsing = csv.ParseOptions(newlines_in_values=True)
    # COPY writes an empty text in quotes, and nothing at all for NULL.
    converting = csv.ConvertOptions(
        column_types=schema, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
    )
    sink = _Sink()
    writer = pq.ParquetWriter(sink, schema, compression="zstd")
    tables: list[Any] = []
    held = 0
    for data, rows in windows:
        if rows:
            tables.append(
                csv.read_csv(io.BytesIO(data), read_options=reading, parse_options=parsing, convert_options=converting)
            )
        held += rows
        if held >= GROUP_ROWS:
            writer.write_table(pa.concat_tables(tables), row_group_size=held)
            tables, held = [], 0
        yield sink.take(), rows
    if tables:
        writer.write_table(pa.concat_tables(tables), row_group_size=held)
    # Only here, never on the way out of an error: without its last bytes, nobody takes the file for a whole one.
    writer.close()
    yield sink.take(), 0


class _Sink(io.RawIOBase):
    """What was written since the last look."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._place = 0

    def writable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Bytes so far."""
        return self._place

    def write(self, data: Any) -> int:
        """Keep it until it is taken."""
        part = bytes(data)
        self._parts.append(part)
        self._place += len(part)
        return len(part)

    def take(self) -> bytes:
        """All that is new."""
        data, self._parts = b"".join(self._parts), []
        return data
