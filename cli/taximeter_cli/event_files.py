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

from taximeter_cli.errors import CliError, UsageError

_NUMBER = re.compile(r"[0-9]{1,16}(\.[0-9]{1,6})?", re.ASCII)
_AZURE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_CELL_SHOWN_MAX = 35
"""Characters of a cell that a sentence may quote: as long as a time. What is longer may be anything."""


class Source(NamedTuple):
    """A file of events."""

    file: Path
    name: str
    """As the person knows it."""


class Mapped(msgspec.Struct):
    """How a CSV file's rows become events."""

    units: dict[str, str]
    """Column → unit."""
    time_column: str | None = None
    tool: str = ""
    provider: str | None = None
    model: str | None = None
    workspace: str | None = None
    workspaces: int | None = None
    start_time: dt.datetime | None = None
    user_column: str | None = None
    tags: dict[str, str] = {}
    """Tag → column."""


class Row(NamedTuple):
    """A usage from a CSV row, in the arguments of ``Meter.record``."""

    line: int
    workspace_id: str
    event_id: str
    quantities: dict[str, int | Decimal]
    time: dt.datetime | None
    user: str | None
    tags: dict[str, str] | None


class Line(NamedTuple):
    """A whole event from an NDJSON line."""

    line: int
    event: bytes


class Problem(NamedTuple):
    """A row that is not an event, and what to do about it."""

    line: int
    sentence: str


def is_ndjson(source: Source, *, mapped: bool) -> bool:
    """Whether a file holds whole events instead of CSV: its ending says so, or else its first line.

    Args:
        source: The file.
        mapped: Whether something was said about the columns of a CSV.

    Raises:
        CliError: It is empty, or one array.
        UsageError: Nothing says what it holds.
    """
    with source.file.open("rb") as stream:
        first = next((line for raw in stream if (line := raw.removeprefix(_BYTE_ORDER_MARK).strip())), b"")
    if not first:
        raise CliError(f"{source.name} is empty: there is nothing to publish.")
    ending = Path(source.name).suffix.lower()
    whole = ending in {".ndjson", ".jsonl", ".json"} or (ending != ".csv" and first.startswith((b"{", b"[")))
    if not whole and ending != ".csv" and not mapped and not _is_azure(first.decode("utf-8", "replace").split(",")):
        raise UsageError(
            f"nothing says what {source.name} holds: NDJSON begins with {{, a CSV needs --map. A name that ends in .ndjson or"
            " .csv says it, too."
        )
    if whole and first.startswith(b"["):
        raise CliError(f"{source.name} is one JSON array: write one event a line instead, as `jq -c '.[]'` does.")
    return whole


def _is_azure(header: list[str]) -> bool:
    return all(column in header for column in _AZURE_COLUMNS)


def count_lines(file: Path) -> int:
    """Number of lines, for a progress bar."""
    with file.open("rb") as stream:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(1 << 20), b""))


def read_ndjson(file: Path) -> Iterator[Line]:
    """Every line that is not blank."""
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            event = line.removeprefix(_BYTE_ORDER_MARK).strip() if number == 1 else line.strip()
            if event:
                yield Line(number, event)


def mapping_for(source: Source, said: Mapped) -> Mapped:
    """Complete what was said of a CSV file from its header.

    The columns of the Azure LLM inference traces (``TIMESTAMP,ContextTokens,GeneratedTokens``) are recognised: then
    tool ``chat``, provider ``openai``, model ``gpt-4o`` and 100 workspaces are what is not said otherwise.

    Raises:
        UsageError: A named column is missing, or something is not said that no header can tell.
    """
    with source.file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        try:
            header = next(csv.reader(stream), [])
        except csv.Error as error:
            raise UsageError(f"the header of {source.name} cannot be read as CSV: {error}") from error
    mapped = msgspec.structs.replace(said)
    if not said.units and _is_azure(header):
        mapped.units = {"ContextTokens": "input_tokens", "GeneratedTokens": "output_tokens"}
        mapped.time_column = said.time_column or "TIMESTAMP"
        mapped.tool = said.tool or "chat"
        if said.provider is None and said.model is None:
            mapped.provider, mapped.model = "openai", "gpt-4o"
        if said.workspace is None and said.workspaces is None:
            mapped.workspaces = 100
    if not mapped.units:
        raise UsageError(
            f"say which columns hold what, such as --map tokens=input_tokens; {source.name} has: {_list(header)}"
        )
    others = (mapped.time_column, mapped.user_column, *mapped.tags.values())
    for column in (*mapped.units, *(name for name in others if name)):
        if column not in header:
            raise UsageError(f"{source.name} has no column {column!r}; it has: {_list(header)}")
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
                try:
                    time = (time or mapped.start_time) + shift
                except OverflowError:
                    yield Problem(reader.line_num, "its time, shifted, lies outside the years 1 to 9999")
                    continue
            workspace = mapped.workspace or f"ws-{index % (mapped.workspaces or 1):03d}"
            user = _text(cells, mapped.user_column) if mapped.user_column else None
            tags = {tag: text for tag, column in mapped.tags.items() if (text := _text(cells, column))}
            yield Row(reader.line_num, workspace, f"{digest}-{index}", quantities, time, user, tags or None)


def _numbered(reader: csv.DictReader[str]) -> Iterator[tuple[int, dict[str, str | None] | csv.Error]]:
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
        raise ValueError(
            f"{column} is {_shown(text)}; write a plain number with at most 6 decimals, such as 374 or 1.5"
        )
    return Decimal(text) if "." in text else int(text)


def _text(cells: Mapping[str, str | None], column: str) -> str | None:
    return (cells.get(column) or "").strip() or None


def _time(cells: Mapping[str, str | None], column: str) -> dt.datetime:
    text = (cells.get(column) or "").strip()
    try:
        return parse_time(text)
    except ValueError:
        raise ValueError(
            f"{column} is {_shown(text)}; write a time such as 2026-11-22T10:00:00Z or 2026-11-22 10:00:00.123"
        ) from None


def parse_time(text: str, *, zone_needed: bool = False) -> dt.datetime:
    """A time with its offset; one without is taken for UTC.

    Raises:
        ValueError: It is not a time, lies outside the years 1 to 9999, or has no offset where one is needed.
    """
    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        if zone_needed:
            raise ValueError("it has no offset")
        return moment.replace(tzinfo=dt.UTC)
    try:
        moment.astimezone(dt.UTC)
    except OverflowError:
        raise ValueError("it lies outside the years 1 to 9999") from None
    return moment


def _shown(text: str) -> str:
    return repr(text) if len(text) <= _CELL_SHOWN_MAX else f"a text of {len(text)} characters"


def _list(header: list[str]) -> str:
    if header and header[0].lstrip().startswith(("{", "[")):  # contents
        return "JSON instead of a header"
    return ", ".join(repr(column) for column in header[:20]) or "no header at all"
