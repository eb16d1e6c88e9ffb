"""The price book in memory: exact integers, one dictionary look-up and one multiplication for each unit.

An event's cost is  Σ quantity · amount / per  over its units, computed exactly, in picodollars, and rounded half-even
once, on the total. To stay in integers, the rates of all units that an event can name are brought to one common
denominator (for the prices that exist, nearly always 1); multipliers are multiplied into them. What is not linear
(packages, tiers of quantity, hours) goes the slow way of ``charging``.

Which price a unit takes (docs/prices.md, decision 0041): the most specific target that prices the unit or an ancestor
of it at the event's time; within a target the unit's own price before its parent's. Targets, most specific first:
tool with provider and model; tool; provider and model. A name as reported goes before the name it is an alias of.
Rules for whole events are found among the same targets, a workspace's multiplier apart from them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from math import lcm
from typing import Any, Final, NamedTuple

from taximeter.names import PARENT_UNITS
from taximeter_db.events import Usage
from taximeter_db.money import AMOUNT_LIMIT, PICO_PER_USD
from taximeter_db.prices import Entry, Target
from taximeter_db.prices_terms import FEE, MAXIMUM, MINIMUM, MISSING, MULTIPLIER
from taximeter_worker.pricing.charging import Assessment, Line, charge, is_linear, settle, tier_amount
from taximeter_worker.pricing.errors import OutOfRange, PriceMissing
from taximeter_worker.pricing.shelf import (
    EVER,
    Quantities,
    Shelf,
    input_tokens,
    microseconds,
    workspace_targets,
)

__all__ = ["RESOLUTIONS_MAX", "PriceBook", "divide_half_even", "microseconds"]


RESOLUTIONS_MAX: Final = 20_000
"""Distinct (tool, provider, model) kept resolved; names come from untrusted producers and must not fill the memory."""
_NEVER: Final = 2**63


class _Band(NamedTuple):
    """Rates in picodollars·`denominator` per unit, up to some number of input tokens.

    `limits`, if there are any: charge per event, minimum and maximum, likewise in picodollars·`denominator`.
    """

    rates: dict[str, int]
    denominator: int
    limits: tuple[int, int, int | None] | None


class _Period(NamedTuple):
    """The rates between two changes of price: ``bands[i]`` holds up to ``thresholds[i]`` input tokens."""

    thresholds: tuple[int, ...]
    bands: tuple[_Band, ...]


class _Current(NamedTuple):
    """The period last compiled of a (tool, provider, model), if it has no long-context tiers: nearly all events' own."""

    start: int
    end: int
    rates: dict[str, int]
    denominator: int


class _Plan(NamedTuple):
    """All periods of one (tool, provider, model); a period is compiled when the first event falls into it."""

    targets: tuple[Target, ...]
    workspace: tuple[Target, ...]
    changes: tuple[int, ...]
    periods: list[_Period | None]


def divide_half_even(numerator: int, denominator: int) -> int:
    """Divide integers and round to the nearest one, a tie to the even one. `denominator` is positive."""
    quotient, rest = divmod(numerator, denominator)
    doubled = rest * 2
    if doubled > denominator or (doubled == denominator and quotient & 1):
        quotient += 1
    return quotient


class PriceBook(Shelf):
    """The book at one revision. Immutable, but for the memory of names already resolved; make a new one to refresh."""

    def __init__(
        self, revision: int, entries: Iterable[Entry], aliases: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        super().__init__(entries, aliases or {})
        self.revision: Final = revision
        self._special = frozenset(target.workspace for target in self._entries if target.workspace is not None)
        self._plans: dict[tuple[str | None, ...], _Plan] = {}
        self._current: dict[tuple[str | None, ...], _Current] = {}

    def price(
        self,
        tool: str,
        provider: str | None,
        model: str | None,
        quantities: Quantities,
        occurred_at_us: int,
        workspace: str | None = None,
    ) -> int:
        """Cost of an event in picodollars, rounded half-even once.

        Args:
            tool: As the event names it.
            provider: Likewise, or None.
            model: Likewise, or None.
            quantities: Unit to non-negative int or Decimal. A unit of quantity 0 needs no price.
            occurred_at_us: The event's own time, microseconds since the Unix epoch.
            workspace: Whose usage it is, for a multiplier of its own.

        Raises:
            PriceMissing: Some unit has no price at that time.
            OutOfRange: The cost is 10¹⁵ USD or more.
        """
        return self.quote(tool, provider, model, quantities, occurred_at_us, workspace)[0]

    def quote(
        self,
        tool: str,
        provider: str | None,
        model: str | None,
        quantities: Quantities,
        occurred_at_us: int,
        workspace: str | None = None,
    ) -> tuple[int, bool]:
        """`price`, and whether it is an estimate by another model's prices."""
        # A hundred nanoseconds here is a tenth of a second per million events: tuples are unpacked, nothing is called.
        key: tuple[str | None, ...] = (tool, provider, model)
        if self._special and workspace in self._special:
            key = (tool, provider, model, workspace)
        plan = self._plans.get(key) or self._plan(key)
        _, _, changes, periods = plan
        index = bisect_right(changes, occurred_at_us) if changes else 0
        thresholds, bands = periods[index] or self._compile(key, plan, index)
        rates, denominator, limits = bands[bisect_left(thresholds, input_tokens(quantities)) if thresholds else 0]
        total: int | Decimal = 0
        try:
            for unit, quantity in quantities.items():
                total += quantity * rates[unit]
        except KeyError:
            if limits or any(quantity and unit not in rates for unit, quantity in quantities.items()):
                found = self.assess(tool, provider, model, quantities, occurred_at_us, workspace)
                return found.cost, found.estimated
            total = Decimal(0)  # nothing was used of what has no rate
        if type(total) is not int:
            if limits:
                return self.assess(tool, provider, model, quantities, occurred_at_us, workspace).cost, False
            cost = _price_exactly(quantities, rates, denominator)
        else:
            if limits:
                fee, least, most = limits
                total = max(total + fee, least)
                total = total if most is None else min(total, most)
            cost = total if denominator == 1 else divide_half_even(total, denominator)
        if cost >= AMOUNT_LIMIT:
            raise _beyond(cost)
        return cost, False

    def price_all(self, usages: Sequence[Usage]) -> list[tuple[Usage, PriceMissing | OutOfRange]]:
        """Set cost and price version of many usages; returns those that cannot be priced, each with the reason.

        The price version is the book's revision; of an estimate, its negative.
        """
        failed: list[tuple[Usage, PriceMissing | OutOfRange]] = []
        current, special, revision = self._current.get, self._special, self.revision
        for usage in usages:
            at = usage.occurred_at
            found = current((usage.tool, usage.provider, usage.model))
            if found is not None and not (special and usage.workspace_id in special):
                start, end, rates, denominator = found
                if start <= at < end:
                    total: int | Decimal | None = 0
                    try:
                        for unit, quantity in usage.quantities.items():
                            total += quantity * rates[unit]  # type: ignore[operator]
                    except KeyError:
                        total = None
                    if denominator != 1 and type(total) is int:
                        total = divide_half_even(total, denominator)
                    # A Decimal among the quantities makes a Decimal of the total.
                    if type(total) is int and total < AMOUNT_LIMIT:
                        usage.cost = total
                        usage.price_version = revision
                        continue
            try:
                usage.cost, estimated = self.quote(
                    usage.tool, usage.provider, usage.model, usage.quantities, at, usage.workspace_id
                )
            except (PriceMissing, OutOfRange) as error:
                failed.append((usage, error))
            else:
                usage.price_version = -revision if estimated else revision
        return failed

    def assess(
        self,
        tool: str,
        provider: str | None,
        model: str | None,
        quantities: Quantities,
        occurred_at_us: int,
        workspace: str | None = None,
    ) -> Assessment:
        """How the cost of an event comes about; arguments and errors are those of `price`, and so is the cost."""
        targets = self.targets(tool, provider, model)
        tokens = input_tokens(quantities)
        policy = self.rule((Target(tool, None, None),), MISSING, occurred_at_us)
        lines: list[Line] = []
        estimated = False
        for unit, quantity in quantities.items():
            if not isinstance(quantity, (int, Decimal)):
                raise TypeError(f"a quantity must be an int or a Decimal, not {type(quantity).__name__}")
            priced, excuse = self.find(targets, unit, occurred_at_us), None
            if priced is None and quantity and policy is not None:
                excuse = policy
                if policy.fallback is not None:
                    priced = self.find(self.model_targets(*policy.fallback), unit, occurred_at_us)
                    estimated = estimated or priced is not None
            if priced is not None:
                charged = charge(unit, quantity, priced, tokens, occurred_at_us)
                lines += charged if excuse is None else [line._replace(policy=excuse) for line in charged]
            elif not quantity or (policy is not None and policy.charge == "free"):
                lines.append(Line(unit, quantity, policy=excuse))
            else:
                raise self.missing(targets, unit, (tool, provider, model), occurred_at_us)
        rules = [
            rule for unit in (FEE, MULTIPLIER, MINIMUM, MAXIMUM) if (rule := self.rule(targets, unit, occurred_at_us))
        ]
        if workspace in self._special:
            rule = self.rule(workspace_targets(tool, workspace), MULTIPLIER, occurred_at_us)
            rules += [] if rule is None else [rule]
        subtotal = sum((line.exact for line in lines), Fraction(0))
        steps = settle(subtotal, rules)
        exact = steps[-1].exact if steps else subtotal
        cost = round(exact * PICO_PER_USD)
        if cost >= AMOUNT_LIMIT:
            raise _beyond(cost)
        return Assessment(lines, subtotal, steps, exact, cost, estimated)

    def missing_units(
        self, tool: str, provider: str | None, model: str | None, quantities: Quantities, occurred_at_us: int
    ) -> list[str]:
        """The units of an event that nothing prices, in its order."""
        missing = []
        for unit, quantity in quantities.items():
            try:
                self.assess(tool, provider, model, {unit: quantity}, occurred_at_us)
            except PriceMissing:
                missing.append(unit)
            except OutOfRange:
                continue
        return missing

    def _plan(self, key: tuple[str | None, ...]) -> _Plan:
        tool, provider, model, *workspace = key
        targets = self.targets(tool or "", provider, model)
        own = workspace_targets(tool, workspace[0]) if workspace else ()
        starts = {
            start
            for target in (*targets, *own)
            for versions in self._entries.get(target, {}).values()
            for start, _ in versions
        } - {EVER}
        plan = _Plan(targets, own, tuple(sorted(starts)), [None] * (len(starts) + 1))
        if len(self._plans) >= RESOLUTIONS_MAX:
            self._plans.clear()
            self._current.clear()
        self._plans[key] = plan
        return plan

    def _compile(self, key: tuple[str | None, ...], plan: _Plan, index: int) -> _Period:
        at = plan.changes[index - 1] if index else EVER
        units = {unit for target in plan.targets for unit in self._entries[target]} | set(PARENT_UNITS)
        found = {unit: price for unit in units if (price := self.find(plan.targets, unit, at)) is not None}
        prices = {unit: price for unit, price in found.items() if is_linear(price.entry)}
        factor = Fraction(1)
        for targets in (plan.targets, plan.workspace):
            multiplier = self.rule(targets, MULTIPLIER, at)
            factor *= 1 if multiplier is None else Fraction(multiplier.amount)
        thresholds = tuple(sorted({tier.above for price in prices.values() for tier in price.entry.tiers}))
        limits = self._limits(plan.targets, factor, at)
        bands = []
        for tokens in (0, *(threshold + 1 for threshold in thresholds)):
            exact = {
                unit: Fraction(tier_amount(price.entry, tokens)[0]) * factor * PICO_PER_USD / Fraction(price.entry.per)
                for unit, price in prices.items()
            }
            known = [amount for amount in limits if amount is not None]
            denominator = lcm(*(number.denominator for number in (*exact.values(), *known)))
            rates = {unit: int(rate * denominator) for unit, rate in exact.items()}
            fee, least, most = (None if amount is None else int(amount * denominator) for amount in limits)
            bands.append(_Band(rates, denominator, (fee or 0, least or 0, most) if known else None))
        period = plan.periods[index] = _Period(thresholds, tuple(bands))
        if not thresholds and len(key) == 3 and bands[0].limits is None:
            end = plan.changes[index] if index < len(plan.changes) else _NEVER
            self._current[key] = _Current(at, end, bands[0].rates, bands[0].denominator)
        return period

    def _limits(self, targets: Sequence[Target], factor: Fraction, at_us: int) -> tuple[Fraction | None, ...]:
        """Charge per event (multiplied), minimum and maximum, in picodollars."""
        rules = (self.rule(targets, unit, at_us) for unit in (FEE, MINIMUM, MAXIMUM))
        fee, least, most = (None if rule is None else Fraction(rule.amount) * PICO_PER_USD for rule in rules)
        return (None if fee is None else fee * factor, least, most)


def _beyond(cost: int) -> OutOfRange:
    return OutOfRange(
        f"The cost is {cost // PICO_PER_USD:,} USD; the ledger holds amounts below 10^15. "
        "Check the quantities and the price."
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
