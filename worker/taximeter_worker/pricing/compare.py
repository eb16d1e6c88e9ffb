"""Two catalogues side by side: which models and prices only one of them has, and which differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from taximeter_db.prices import Entry, Price, Target, same_value
from taximeter_db.prices_terms import RULES
from taximeter_worker.pricing.book import PriceBook


class Counts(msgspec.Struct):
    """Models and prices of one provider, or of all, by where they are found."""

    models_both: int = 0
    models_only_a: int = 0
    models_only_b: int = 0
    prices_same: int = 0
    prices_differ: int = 0
    prices_only_a: int = 0
    prices_only_b: int = 0

    def add(self, other: Counts) -> None:
        """Add another provider's numbers."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Difference(msgspec.Struct, frozen=True):
    """A unit that the two charge differently; None where one has no price for it (nor for its parent)."""

    target: Target
    unit: str
    a: Price | None
    b: Price | None


class Comparison(msgspec.Struct):
    """The whole report. `providers` by name; `differences` in the order of A."""

    total: Counts
    providers: dict[str, Counts]
    differences: list[Difference]


def book_of(prices: Iterable[Price], aliases: Mapping[str, Any]) -> PriceBook:
    """A book of these prices alone, in no database."""
    entries = []
    for number, price in enumerate(prices, 1):
        fields = {name: getattr(price, name) for name in Price.__struct_fields__}
        entries.append(price if isinstance(price, Entry) else Entry(**fields, id=number, revision=1))
    return PriceBook(1, entries, aliases)


def compare(a: PriceBook, b: PriceBook, at_us: int) -> Comparison:
    """Compare what both charge at a time, model by model; under its other names too, as each would charge it.

    A sub-pool that only one of them prices is compared with what the other one takes for it: its parent's price.
    """
    report = Comparison(Counts(), {}, [])
    met: set[Target] = set()
    for target in a.all_targets():
        others = _counterparts(b, target)
        met.update(others)
        _compare_target(report, target, (a, (target,)), (b, others), at_us)
    for target in b.all_targets():
        if target not in met:
            _compare_target(report, target, (a, _counterparts(a, target)), (b, (target,)), at_us)
    for counts in report.providers.values():
        report.total.add(counts)
    return report


def _counterparts(book: PriceBook, target: Target) -> tuple[Target, ...]:
    if target.tool is not None or target.provider is None or target.model is None:
        return (target,) if target in book.all_targets() else ()
    return book.model_targets(target.provider, target.model)


def _compare_target(
    report: Comparison,
    target: Target,
    one: tuple[PriceBook, tuple[Target, ...]],
    other: tuple[PriceBook, tuple[Target, ...]],
    at_us: int,
) -> None:
    counts = report.providers.setdefault(target.provider or str(target), Counts())
    counts.models_both += bool(one[1] and other[1])
    counts.models_only_a += not other[1]
    counts.models_only_b += not one[1]
    units = {unit for book, targets in (one, other) for found in targets for unit in book.units(found)} - set(RULES)
    for unit in sorted(units):
        mine, theirs = (
            None if found is None else found.entry
            for found in (book.find(targets, unit, at_us) for book, targets in (one, other))
        )
        if mine is None and theirs is None:
            continue
        if mine is not None and theirs is not None and same_value(mine, theirs):
            counts.prices_same += 1
            continue
        if mine is None:
            counts.prices_only_b += 1
        elif theirs is None:
            counts.prices_only_a += 1
        else:
            counts.prices_differ += 1
        if one[1] and other[1]:
            report.differences.append(Difference(target, unit, mine, theirs))
