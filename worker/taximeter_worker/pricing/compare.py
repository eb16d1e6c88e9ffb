"""Two catalogues side by side: which models and prices only one of them has, and which differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

import msgspec

from taximeter.pricing.price_book import PriceBook
from taximeter.pricing.terms import TargetKey
from taximeter_db.prices.store import Entry, Price, Target, same_value
from taximeter_db.prices.terms import RULES


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


class _Side(NamedTuple):
    """One of the two books, and the targets in it that a model's name leads to."""

    book: PriceBook
    targets: tuple[TargetKey, ...]

    def price_of(self, unit: str, at_us: int) -> Entry | None:
        priced = self.book.find(self.targets, unit, at_us)
        return None if priced is None else cast("Entry", priced.entry)


def compare(a: PriceBook, b: PriceBook, at_us: int) -> Comparison:
    """Compare what both charge at a time, model by model; under its other names too, as each would charge it.

    A sub-pool that only one of them prices is compared with its parent's price in the other.
    """
    report = Comparison(Counts(), {}, [])
    met: set[TargetKey] = set()
    for target in a.all_targets():
        others = _counterparts(b, target)
        met.update(others)
        _compare_target(report, Target(*target), _Side(a, (target,)), _Side(b, others), at_us)
    for target in b.all_targets():
        if target not in met:
            sides = _Side(a, _counterparts(a, target)), _Side(b, (target,))
            _compare_target(report, Target(*target), *sides, at_us)
    for counts in report.providers.values():
        report.total.add(counts)
    return report


def _counterparts(book: PriceBook, target: TargetKey) -> tuple[TargetKey, ...]:
    tool, provider, model, _ = target
    if tool is not None or provider is None or model is None:
        return (target,) if target in book.all_targets() else ()
    return book.model_targets(provider, model)


def _compare_target(report: Comparison, target: Target, a: _Side, b: _Side, at_us: int) -> None:
    counts = report.providers.setdefault(target.provider or str(target), Counts())
    counts.models_both += bool(a.targets and b.targets)
    counts.models_only_a += not b.targets
    counts.models_only_b += not a.targets
    units = {unit for side in (a, b) for key in side.targets for unit in side.book.units(key)} - set(RULES)
    for unit in sorted(units):
        price_a, price_b = a.price_of(unit, at_us), b.price_of(unit, at_us)
        if price_a is not None and price_b is not None and same_value(price_a, price_b):
            counts.prices_same += 1
            continue
        if price_a is None and price_b is None:
            continue
        if price_a is None:
            counts.prices_only_b += 1
        elif price_b is None:
            counts.prices_only_a += 1
        else:
            counts.prices_differ += 1
        if a.targets and b.targets:
            report.differences.append(Difference(target, unit, price_a, price_b))
