"""The price book in memory: exact integers, one dictionary look-up and one multiplication for each unit.

An event's cost is  Σ quantity · amount / per  over its units, computed exactly, in picodollars, and rounded half-even
once, on the total. To stay in integers, the rates of all units that an event can name are brought to one common
denominator (for the prices that exist, nearly always 1).

Which price a unit takes (docs/prices.md, decision 0041): the most specific target that prices the unit or an ancestor
of it at the event's time; within a target the unit's own price before its parent's. Targets, most specific first:
tool with provider and model; tool; provider and model. A name as reported goes before the name it is an alias of.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from math import lcm
from typing import Any, Final, NamedTuple

from taximeter.names import PARENT_UNITS, STANDARD_UNITS
from taximeter_db.money import AMOUNT_LIMIT, PICO_PER_USD
from taximeter_db.prices import Entry, Target, utc_text
from taximeter_worker.pricing.errors import OutOfRange, PriceMissing
from taximeter_worker.pricing.model_names import ModelNames

Quantities = Mapping[str, int | Decimal]

RESOLUTIONS_MAX: Final = 20_000
"""Distinct (tool, provider, model) kept resolved; names come from untrusted producers and must not fill the memory."""
EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_EVER: Final = -(2**63)


def _chain(unit: str) -> tuple[str, ...]:
    """A unit and the ancestors whose price it may take."""
    units = [unit]
    while (parent := PARENT_UNITS.get(units[-1])) is not None:
        units.append(parent)
    return tuple(units)


CHAINS: Final = {unit: _chain(unit) for unit in PARENT_UNITS}
_INPUT_POOLS: Final = frozenset(unit for unit in STANDARD_UNITS if CHAINS.get(unit, (unit,))[-1] == "input_tokens")
"""The disjoint pools whose sum decides on the long-context tier."""


class Priced(NamedTuple):
    """The entry that prices a unit, and as which unit: its own, or an ancestor."""

    entry: Entry
    unit: str

    def amount(self, input_tokens: int | Decimal) -> tuple[Decimal, int | None]:
        """USD per ``entry.per`` units in an event of that many input tokens, and the threshold of the tier, if any."""
        amount, above = self.entry.amount, None
        for tier in self.entry.tiers:
            if input_tokens > tier.above:
                amount, above = tier.amount, tier.above
        return amount, above


class _Band(NamedTuple):
    """Rates in picodollars·`denominator` per unit, up to some number of input tokens."""

    rates: dict[str, int]
    denominator: int


class _Period(NamedTuple):
    """The rates between two changes of price: ``bands[i]`` holds up to ``thresholds[i]`` input tokens."""

    thresholds: tuple[int, ...]
    bands: tuple[_Band, ...]


class _Plan(NamedTuple):
    """All periods of one (tool, provider, model); a period is compiled when the first event falls into it."""

    targets: tuple[Target, ...]
    changes: tuple[int, ...]
    periods: list[_Period | None]


def microseconds(moment: dt.datetime) -> int:
    """An aware time as microseconds since the Unix epoch."""
    return (moment - EPOCH) // dt.timedelta(microseconds=1)


def input_tokens(quantities: Quantities) -> int | Decimal:
    """All input tokens of an event, cached, audio and image ones included."""
    total: int | Decimal = 0
    for unit, quantity in quantities.items():
        if unit in _INPUT_POOLS:
            total += quantity
    return total


def divide_half_even(numerator: int, denominator: int) -> int:
    """Divide integers and round to the nearest one, a tie to the even one. `denominator` is positive."""
    quotient, rest = divmod(numerator, denominator)
    doubled = rest * 2
    if doubled > denominator or (doubled == denominator and quotient & 1):
        quotient += 1
    return quotient


class PriceBook:
    """The book at one revision. Immutable, but for the memory of names already resolved; make a new one to refresh."""

    def __init__(
        self, revision: int, entries: Iterable[Entry], aliases: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        self.revision: Final = revision
        self._entries: dict[Target, dict[str, tuple[tuple[int, Entry], ...]]] = {}
        versions: dict[Target, dict[str, dict[int, Entry]]] = {}
        for entry in sorted(entries, key=lambda entry: entry.revision):
            start = _EVER if entry.effective_from is None else microseconds(entry.effective_from)
            # Of two versions from the same moment, the later revision counts.
            versions.setdefault(entry.target, {}).setdefault(entry.unit, {})[start] = entry
        for target, units in versions.items():
            self._entries[target] = {unit: tuple(sorted(starts.items())) for unit, starts in units.items()}
        self._names = ModelNames(
            ((t.provider, t.model) for t in self._entries if t.provider is not None and t.model is not None),
            aliases or {},
        )
        self._plans: dict[tuple[str, str | None, str | None], _Plan] = {}

    def price(
        self, tool: str, provider: str | None, model: str | None, quantities: Quantities, occurred_at_us: int
    ) -> int:
        """Cost of an event in picodollars, rounded half-even once.

        Args:
            tool: As the event names it.
            provider: Likewise, or None.
            model: Likewise, or None.
            quantities: Unit to non-negative int or Decimal. A unit of quantity 0 needs no price.
            occurred_at_us: The event's own time, microseconds since the Unix epoch.

        Raises:
            PriceMissing: Some unit has no price at that time.
            OutOfRange: The cost is 10¹⁵ USD or more.
        """
        # A hundred nanoseconds here is a tenth of a second per million events: tuples are unpacked, nothing is called.
        plan = self._plans.get((tool, provider, model)) or self._plan(tool, provider, model)
        _, changes, periods = plan
        index = bisect_right(changes, occurred_at_us) if changes else 0
        thresholds, bands = periods[index] or self._compile(plan, index)
        rates, denominator = bands[bisect_left(thresholds, input_tokens(quantities)) if thresholds else 0]
        total: int | Decimal = 0
        try:
            for unit, quantity in quantities.items():
                total += quantity * rates[unit]
        except KeyError:
            self._require_prices(tool, provider, model, quantities, occurred_at_us, rates)
            cost = _price_exactly(quantities, rates, denominator)
        else:
            if type(total) is not int:
                cost = _price_exactly(quantities, rates, denominator)
            elif denominator == 1:
                cost = total
            else:
                cost = divide_half_even(total, denominator)
        if cost >= AMOUNT_LIMIT:
            raise OutOfRange(
                f"The cost is {cost // PICO_PER_USD:,} USD; the ledger holds amounts below 10^15. "
                "Check the quantities and the price."
            )
        return cost

    def find(self, targets: Sequence[Target], unit: str, at_us: int) -> Priced | None:
        """The entry that prices `unit` at a time, by the rule at the top of this module."""
        for target in targets:
            units = self._entries[target]
            for name in CHAINS.get(unit, (unit,)):
                versions = units.get(name)
                if versions:
                    index = bisect_right(versions, at_us, key=lambda version: version[0])
                    if index:
                        return Priced(versions[index - 1][1], name)
        return None

    def targets(self, tool: str, provider: str | None, model: str | None) -> tuple[Target, ...]:
        """The targets in the book that apply to an event, most specific first."""
        names = self._names.resolve(provider, model) if provider is not None and model is not None else ()
        wanted = [
            *(Target(tool, *name) for name in names),
            Target(tool, None, None),
            *(Target(None, *name) for name in names),
        ]
        return tuple(target for target in wanted if target in self._entries)

    def entries(self) -> list[Entry]:
        """Every version that counts, ordered by target, unit and start."""

        def order(target: Target) -> tuple[str, str, str]:
            return (target.tool or "", target.provider or "", target.model or "")

        return [
            entry
            for target in sorted(self._entries, key=order)
            for unit in sorted(self._entries[target])
            for _, entry in self._entries[target][unit]
        ]

    def _plan(self, tool: str, provider: str | None, model: str | None) -> _Plan:
        targets = self.targets(tool, provider, model)
        starts = {
            start for target in targets for versions in self._entries[target].values() for start, _ in versions
        } - {_EVER}
        plan = _Plan(targets, tuple(sorted(starts)), [None] * (len(starts) + 1))
        if len(self._plans) >= RESOLUTIONS_MAX:
            self._plans.clear()
        self._plans[tool, provider, model] = plan
        return plan

    def _compile(self, plan: _Plan, index: int) -> _Period:
        at = plan.changes[index - 1] if index else _EVER
        units = {unit for target in plan.targets for unit in self._entries[target]} | set(PARENT_UNITS)
        prices = {unit: price for unit in units if (price := self.find(plan.targets, unit, at)) is not None}
        thresholds = tuple(sorted({tier.above for price in prices.values() for tier in price.entry.tiers}))
        bands = []
        for tokens in (0, *(threshold + 1 for threshold in thresholds)):
            exact = {
                unit: Fraction(price.amount(tokens)[0]) * PICO_PER_USD / Fraction(price.entry.per)
                for unit, price in prices.items()
            }
            denominator = lcm(*(rate.denominator for rate in exact.values()))
            rates = {unit: rate.numerator * (denominator // rate.denominator) for unit, rate in exact.items()}
            bands.append(_Band(rates, denominator))
        period = plan.periods[index] = _Period(thresholds, tuple(bands))
        return period

    def _require_prices(
        self,
        tool: str,
        provider: str | None,
        model: str | None,
        quantities: Quantities,
        at_us: int,
        rates: Mapping[str, int],
    ) -> None:
        """Raise for the first unit without a price of which there is any."""
        unit = next((unit for unit, quantity in quantities.items() if quantity and unit not in rates), None)
        if unit is None:
            return
        starts = [
            versions[0][0]
            for target in self.targets(tool, provider, model)
            for name in CHAINS.get(unit, (unit,))
            if (versions := self._entries[target].get(name))
        ]
        raise PriceMissing(
            unit=unit,
            tool=tool,
            provider=provider,
            model=model,
            time=time_text(at_us),
            later=time_text(min(starts)) if starts else None,
        )


def _price_exactly(quantities: Quantities, rates: Mapping[str, int], denominator: int) -> int:
    """The way for decimal quantities: their products with integers could be rounded to the decimal context."""
    total, scale = 0, 1
    for unit, quantity in quantities.items():
        if not isinstance(quantity, (int, Decimal)):
            raise TypeError(f"a quantity must be an int or a Decimal, not {type(quantity).__name__}")
        numerator, divisor = quantity.as_integer_ratio()
        total = total * divisor + numerator * rates.get(unit, 0) * scale
        scale *= divisor
    return divide_half_even(total, scale * denominator)


def time_text(at_us: int) -> str:
    """Microseconds since the epoch as RFC 3339 in UTC."""
    return utc_text(EPOCH + dt.timedelta(microseconds=at_us))
