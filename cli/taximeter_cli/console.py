"""What people and machines see: tables or JSON on stdout, sentences on stderr, progress where there is a terminal."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

_PIPE_WIDTH = 200
"""Columns where no terminal says otherwise: wide enough that ids stay on their line."""

error_console = Console(stderr=True, highlight=False, soft_wrap=True)


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def clean(value: object) -> str:
    """Text that is safe on a terminal: what producers sent may hold escape sequences and lone surrogates."""
    text = "" if value is None else str(value)
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: ``1 event``, ``19,366 events``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def say(sentence: str) -> None:
    """A line for a person on stdout."""
    _console().print(Text(sentence), soft_wrap=True)


def note(sentence: str) -> None:
    """A line for a person on stderr, where it does not disturb what a machine reads."""
    error_console.print(Text(sentence))


def emit(value: object) -> None:
    """One JSON document on stdout. Amounts are strings; lone surrogates stay escaped."""
    sys.stdout.write(json.dumps(value, indent=2, default=_plain) + "\n")
    sys.stdout.flush()


def _plain(value: object) -> Any:
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    raise TypeError(f"no JSON form for {type(value).__name__}")


def moment(value: dt.datetime | None) -> str:
    """A time for a table, in UTC to the second."""
    return "" if value is None else value.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Print rows for a person; ``right`` names the columns of numbers."""
    grid = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        grid.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(clean(cell)) for cell in row))
    _console().print(grid)


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values. Sentences are folded beside their names; an address is never, it would be copied in pieces."""
    rows = [(name, clean(value)) for name, value in pairs]
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        if " " in value:
            grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
            grid.add_column(style="bold", min_width=width)
            grid.add_column(overflow="fold")
            grid.add_row(name, Text(value))
            _console().print(grid)
        else:
            _console().print(Text.assemble((name.ljust(width), "bold"), "  ", value), soft_wrap=True)


class Bar:
    """A progress bar that a loop moves forward."""

    def __init__(self, progress: Progress | None, task: Any) -> None:
        self._progress = progress
        self._task = task

    def at(self, done: int, total: int | None = None) -> None:
        """Show how far it is."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, total=total)


@contextlib.contextmanager
def bar(label: str, total: int | None, *, quiet: bool) -> Iterator[Bar]:
    """A progress bar on stderr; nothing when ``quiet`` or when stderr is not a terminal."""
    if quiet or not sys.stderr.isatty():
        yield Bar(None, None)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=error_console, transient=True) as progress:
        yield Bar(progress, progress.add_task(label, total=total))
