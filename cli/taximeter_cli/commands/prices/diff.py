"""`taximeter prices diff A B`: two catalogues side by side."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import msgspec
import typer

from taximeter.pricing.price_index import microseconds
from taximeter_cli import console
from taximeter_cli.commands.prices.sources import read_source
from taximeter_db.prices.store import Price, PriceError, value_text
from taximeter_worker.pricing.compare import Counts, Difference, book_of, compare
from taximeter_worker.pricing.price_file import parse_time, price_object

COLUMNS = ("Provider", "Models in both", "Only A", "Only B", "Prices same", "Differ", "Only A", "Only B")


def show(one: str, other: str, at: str | None, limit: int, data_dir: Path | None, json: bool) -> None:
    """Show counts by provider and the prices that differ, of models that both have."""
    try:
        moment = dt.datetime.now(dt.UTC) if at is None else parse_time(at)
    except PriceError as error:
        raise typer.BadParameter(str(error)) from error
    a, b = (read_source(name, data_dir) for name in (one, other))
    report = compare(book_of(a.prices, a.aliases), book_of(b.prices, b.aliases), microseconds(moment))
    providers = dict(sorted(report.providers.items(), key=lambda item: (-item[1].models_both, item[0])))
    if json:
        console.emit(
            {
                "a": a.name,
                "b": b.name,
                "at": moment,
                "total": report.total,
                "providers": providers,
                "differences": [_object(difference) for difference in report.differences],
                "notes": {"a": a.notes, "b": b.notes},
            }
        )
        return
    console.say(f"A is {a.name}: {len(a.prices):,} prices. B is {b.name}: {len(b.prices):,} prices.")
    shared = [(name, counts) for name, counts in providers.items() if counts.models_both]
    console.table(COLUMNS, [*(_row(*pair) for pair in shared), _row("all", report.total)], right=COLUMNS[1:])
    console.say(f"{len(providers) - len(shared):,} providers have no model in both.")
    for difference in report.differences[:limit]:
        console.say(f"{difference.target}, {difference.unit}: A {_value(difference.a)}; B {_value(difference.b)}")
    if len(report.differences) > limit:
        console.say(f"{len(report.differences) - limit:,} more differences: all of them with --json.")


def _row(name: str, counts: Counts) -> list[object]:
    return [name, *(f"{number:,}" for number in msgspec.structs.astuple(counts))]


def _value(price: Price | None) -> str:
    return "none" if price is None else value_text(price)


def _object(difference: Difference) -> dict[str, Any]:
    sides = {"a": difference.a, "b": difference.b}
    target = {name: value for name, value in difference.target._asdict().items() if value is not None}
    prices = {name: None if price is None else price_object(price) for name, price in sides.items()}
    return {**target, "unit": difference.unit, **prices}
