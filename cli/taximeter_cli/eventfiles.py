"""Reading usage events from a file: NDJSON of whole events, or CSV with a mapping of its columns.

Rules for CSV, which ``docs/cli.md`` repeats:

- The id of data row *i* (counted from 0) is ``<first 16 hex digits of the file's SHA-256>-<i>``: publishing the same
  file again makes the same ids, which are counted as duplicates and not charged.
- With ``workspaces`` = N, row *i* goes to workspace ``ws-<i mod N>``, three digits at least.
- A time without an offset is UTC. With ``start_time``, all times are shifted so that the first good row is at it.
"""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import msgspec

from taximeter_cli.errors import UsageError

_NUMBER = re.compile(r"[0-9]{1,16}(\.[0-9]{1,6})?", re.ASCII)
_AZURE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


class Mapped(msgspec.Struct):
    """How a CSV file's rows become events."""

    units: dict[str, str]
    """Column → unit."""
    time_column: str | None
    tool: str
    provider: str | None = None
    model: str | None = None
    workspace: str | None = None
    workspaces: int | None = None
    start_time: dt.datetime | None = None


class Row(NamedTuple):
    """A usage from a CSV row, in the arguments of ``Meter.record``."""

    line: int
    workspace_id: str
    event_id: str
    quantities: dict[str, int | Decimal]
    time: dt.datetime | None


class Line(NamedTuple):
    """A whole event from an NDJSON line."""

    line: int
    event: bytes


class Problem(NamedTuple):
    """A row that is no event, and what to do about it."""

    line: int
    sentence: str


def is_ndjson(file: Path) -> bool:
    """Whether the first character that is no white space opens an object."""
    with file.open("rb") as stream:
        return stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{"


def count_lines(file: Path) -> int:
    """Number of lines, for a progress bar."""
    with file.open("rb") as stream:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(1 << 20), b""))


def read_ndjson(file: Path) -> Iterator[Line]:
    """Every line that is not blank."""
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            event = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
            if event:
                yield Line(number, event)


def mapping_for(
    file: Path,
    *,
    units: Mapping[str, str],
    time_column: str | None,
    tool: str | None,
    provider: str | None,
    model: str | None,
    workspace: str | None,
    workspaces: int | None,
    start_time: dt.datetime | None,
) -> Mapped:
    """Complete the mapping of a CSV file from its header.

    The columns of the Azure LLM inference traces (``TIMESTAMP,ContextTokens,GeneratedTokens``) are recognised: then
    tool ``chat``, provider ``openai``, model ``gpt-4o`` and 100 workspaces are what is not said otherwise.

    Raises:
        UsageError: A named column is missing, or something is not said that no header can tell.
    """
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        header = next(csv.reader(stream), [])
    mapped = Mapped(dict(units), time_column, tool or "", provider, model, workspace, workspaces, start_time)
    if not units and all(column in header for column in _AZURE_COLUMNS):
        mapped.units = {"ContextTokens": "input_tokens", "GeneratedTokens": "output_tokens"}
        mapped.time_column = time_column or "TIMESTAMP"
        mapped.tool = tool or "chat"
        if provider is None and model is None:
            mapped.provider, mapped.model = "openai", "gpt-4o"
        if workspace is None and workspaces is None:
            mapped.workspaces = 100
    if not mapped.units:
        raise UsageError(f"say which columns hold what, such as --map tokens=input_tokens; {file} has: {_list(header)}")
    for column in (*mapped.units, *([mapped.time_column] if mapped.time_column else [])):
        if column not in header:
            raise UsageError(f"{file} has no column {column!r}; it has: {_list(header)}")
    if not mapped.tool:
        raise UsageError("say which tool the usage is of: --tool NAME")
    if mapped.workspace is None and mapped.workspaces is None:
        raise UsageError(
            "say whose usage it is: --workspace ID, or --workspaces N to spread the rows over N workspaces"
        )
    return mapped


def read_csv(file: Path, mapped: Mapped) -> Iterator[Row | Problem]:
    """Every row of data, as an event or as what is wrong with it."""
    with file.open("rb") as raw:
        digest = hashlib.file_digest(raw, "sha256").hexdigest()[:16]
    shift: dt.timedelta | None = None
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        reader = csv.DictReader(stream)
        for index, cells in _numbered(reader):
            if isinstance(cells, csv.Error):
                yield Problem(reader.line_num, f"cannot be read as CSV: {cells}")
                continue
            try:
                quantities = {unit: _quantity(cells, column) for column, unit in mapped.units.items()}
                time = _time(cells, mapped.time_column) if mapped.time_column else None
            except ValueError as error:
                yield Problem(reader.line_num, str(error))
                continue
            if mapped.start_time is not None:
                shift = (mapped.start_time - time if time else dt.timedelta()) if shift is None else shift
                time = (time or mapped.start_time) + shift
            workspace = mapped.workspace or f"ws-{index % (mapped.workspaces or 1):03d}"
            yield Row(reader.line_num, workspace, f"{digest}-{index}", quantities, time)


def _numbered(
    reader: csv.DictReader[str],
) -> Iterator[tuple[int, dict[str, str | None] | csv.Error]]:
    step: Callable[[], dict[str, str | None]] = reader.__next__
    index = 0
    while True:
        try:
            yield index, step()
        except StopIteration:
            return
        except csv.Error as error:
            yield index, error
        index += 1


def _quantity(cells: Mapping[str, str | None], column: str) -> int | Decimal:
    text = (cells.get(column) or "").strip()
    if not text:
        raise ValueError(f"{column} is empty; write 0 where nothing was consumed")
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{column} is {text[:40]!r}; write a plain number with at most 6 decimals, such as 374 or 1.5")
    return Decimal(text) if "." in text else int(text)


def _time(cells: Mapping[str, str | None], column: str) -> dt.datetime:
    text = (cells.get(column) or "").strip()
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{column} is {text[:40]!r}; write a time such as 2026-11-22T10:00:00Z or 2026-11-22 10:00:00.123"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def _list(header: list[str]) -> str:
    return ", ".join(repr(column) for column in header[:20]) or "no header at all"
