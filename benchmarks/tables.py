"""What is printed: a table of each scenario's sides, and at the end one of all figures against their targets."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from benchmarks.results import Result, Turns
from benchmarks.stats import Spread, column
from benchmarks.targets import TARGETS, Unit

# Measurements that a table of sides shows, and how it calls them; the first of these that a side has is its main one.
_MAIN = {
    "events_per_second": ("events/s", "{:,.0f}"),
    "per_second": ("rows/s", "{:,.0f}"),
    "p50_ms": ("p50, ms", "{:,.2f}"),
    "p50_us": ("p50, us", "{:,.1f}"),
    "ns_per_call": ("ns a call", "{:,.0f}"),
    "confirmed_per_second": ("confirmed/s", "{:,.0f}"),
}
ROLES = ("producer", "broker", "worker", "postgresql", "valkey", "verify", "rebuild")
REACHED = {"aim": "yes, the aim too", "must": "yes", "missed": "NO"}


def value_text(value: float, unit: Unit) -> str:
    """A figure with its unit."""
    if unit == "/s":
        return f"{value:,.0f}/s"
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}{'x' if unit == 'x' else ' µs' if unit == 'us' else ' ' + unit}"


def bound_text(value: float, unit: Unit, better: str) -> str:
    """A must or an aim."""
    number = (
        f"{value:,.0f}/s"
        if unit == "/s"
        else f"{value:g}{'x' if unit == 'x' else ' µs' if unit == 'us' else ' ' + unit}"
    )
    return f"{'≥' if better == 'more' else '≤'} {number}"


def main_measurement(turns: Turns) -> tuple[str, Spread, str] | None:
    """Its heading, its spread and the format of its numbers."""
    for name, (heading, shape) in _MAIN.items():
        if name in turns[0]:
            return heading, Spread.of(column(turns, name)), shape
    return None


def cpu(turns: Turns) -> dict[str, float]:
    """Median CPU microseconds an event (or a row) by process."""
    name = "cpu_us_per_event" if "cpu_us_per_event" in turns[0] else "cpu_us_per_row"
    found = [turn.get(name, {}) for turn in turns]
    return {role: Spread.of(one[role] for one in found).median for role in ROLES if role in found[0]}


def side_lines(result: Result) -> Iterable[list[str]]:
    """Heading and a line for each side: its name, median, lowest, highest, and of the rest what any side measured."""
    sides = {side: turns for side, turns in result.sides.items() if main_measurement(turns) is not None}
    cells = {heading: {side: cell(turns) for side, turns in sides.items()} for heading, cell in _MORE.items()}
    more = {heading: found for heading, found in cells.items() if any(found.values())}
    yield ["side", "median", "lowest", "highest", *more]
    for side, turns in sides.items():
        main = main_measurement(turns)
        assert main is not None
        heading, spread, shape = main
        numbers = [shape.format(number) for number in (spread.median, spread.low, spread.high)]
        yield [f"{side}, {heading}", *numbers, *(found[side] for found in more.values())]


def _cpu_cell(turns: Turns) -> str:
    return "  ".join(f"{role} {spent:.1f}" for role, spent in cpu(turns).items())


def _cell(shape: str, *names: str) -> Callable[[Turns], str]:
    """The median of the first of these measurements that a side has."""

    def cell(turns: Turns) -> str:
        for name in names:
            if name in turns[0]:
                return shape.format(Spread.of(column(turns, name)).median)
        return ""

    return cell


_MORE: dict[str, Callable[[Turns], str]] = {
    "p99": _cell("{:,.1f}", "p99_ms", "p99_us"),
    "most": _cell("{:,.1f}", "max_ms", "max_us"),
    "CPU µs by process": _cpu_cell,
    "WAL, bytes": _cell("{:,.0f}", "wal_bytes_per_event"),
    "a batch": _cell("{:,.0f}", "batch_events"),
}


def figure_lines(figures: dict[str, Spread]) -> Iterable[list[str]]:
    """Heading and a line for each figure, in the targets' order."""
    yield ["scenario", "figure", "lowest", "highest", "must", "aim", "met"]
    for name, target in TARGETS.items():
        if (found := figures.get(name)) is None:
            continue
        numbers = [value_text(number, target.unit) for number in (found.median, found.low, found.high)]
        bounds = [bound_text(bound, target.unit, target.better) for bound in (target.must, target.aim)]
        yield [target.title, *numbers, *bounds, REACHED[target.reached(found.median)]]


def aligned(lines: Iterable[list[str]]) -> str:
    """Columns of text; all but the first are aligned to the right, unless they hold words."""
    rows = list(lines)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index == 0 or " " in cell.strip(" ≥≤") else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def markdown(lines: Iterable[list[str]]) -> str:
    """The same as a table of Markdown."""
    rows = list(lines)
    ruler = ["---"] + ["--:"] * (len(rows[0]) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], ruler, *rows[1:]])
