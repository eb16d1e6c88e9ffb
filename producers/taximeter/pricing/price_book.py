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
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from taximeter.errors import OutOfRangeError, PriceMissingError
from taximeter.pricing.charging import Assessment, Line, charge, settle
from taximeter.pricing.price_index import (
    EVER,
    PriceIndex,
    PriceTerms,
    Quantities,
    input_tokens,
    workspace_targets,
)
from taximeter.pricing.rates import Period, compile_period, divide_half_even, price_exactly
from taximeter.pricing.terms import (
    AMOUNT_LIMIT,
    FEE,
    MAXIMUM,
    MINIMUM,
    MISSING,
    MULTIPLIER,
    PICO_PER_USD,
    PriceEntry,
    Target,
    TargetKey,
)

RESOLUTIONS_MAX: Final = 20_000
"""Distinct (tool, provider, model) kept resolved; names come from untrusted producers and must not fill the memory."""
_NEVER: Final = 2**63
_CONTEXT: Final = Context(prec=40)
_PICO_PER_USD: Final = Decimal(PICO_PER_USD)


class Priceable(Protocol):
    """A usage that can be priced; `cost` and `price_version` are written."""

    tool: str
    provider: str | None
    model: str | None
    occurred_at: int
    workspace_id: str
    cost: int
    price_version: int

    @property
    def quantities(self) -> Quantities: ...  # noqa: D102


_UsageT = TypeVar("_UsageT", bound=Priceable)


class _Current(NamedTuple):
    """The period last compiled of a (tool, provider, model), if it has no long-context tiers: nearly all events' own."""

    start: int
    end: int
    rates: dict[str, int]
    denominator: int


class _Plan(NamedTuple):
    """All periods of one (tool, provider, model); a period is compiled when the first event falls into it."""

    targets: tuple[TargetKey, ...]
    workspace: tuple[TargetKey, ...]
    changes: tuple[int, ...]
    periods: list[Period | None]


class PriceBook(PriceIndex):
    """The book at one revision. Immutable, but for the memory of names already resolved; make a new one to refresh."""

    def __init__(
        self, revision: int, entries: Iterable[PriceEntry], aliases: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        super().__init__(entries, aliases or {})
        self.revision: Final = revision
        self._special = frozenset(workspace for *_, workspace in self._entries if workspace is not None)
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
            PriceMissingError: Some unit has no price at that time.
            OutOfRangeError: The cost is 10¹⁵ USD or more.
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
                assessment = self.assess(PriceTerms(tool, provider, model, quantities, occurred_at_us, workspace))
                return assessment.cost, assessment.estimated
            total = Decimal(0)  # nothing was used of what has no rate
        if type(total) is not int:
            if limits:
                terms = PriceTerms(tool, provider, model, quantities, occurred_at_us, workspace)
                return self.assess(terms).cost, False
            cost = price_exactly(quantities, rates, denominator)
        else:
            if limits:
                fee, least, most = limits
                total = max(total + fee, least)
                total = total if most is None else min(total, most)
            cost = total if denominator == 1 else divide_half_even(total, denominator)
        if cost >= AMOUNT_LIMIT:
            raise _beyond(cost)
        return cost, False

    def price_in_usd(self, *event: Any) -> Decimal:
        """`price` in USD, exactly; arguments and errors are those of `price`."""
        return _CONTEXT.divide(Decimal(self.price(*event)), _PICO_PER_USD)

    def price_all(self, usages: Sequence[_UsageT]) -> list[tuple[_UsageT, PriceMissingError | OutOfRangeError]]:
        """Set cost and price version of many usages; returns those that cannot be priced, each with the reason.

        The price version is the book's revision; of an estimate, its negative.
        """
        failed: list[tuple[_UsageT, PriceMissingError | OutOfRangeError]] = []
        current, special, revision = self._current.get, self._special, self.revision
        for usage in usages:
            at = usage.occurred_at
            period = current((usage.tool, usage.provider, usage.model))
            if period is not None and not (special and usage.workspace_id in special):
                start, end, rates, denominator = period
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
            except (PriceMissingError, OutOfRangeError) as error:
                failed.append((usage, error))
            else:
                usage.price_version = -revision if estimated else revision
        return failed

    def assess(self, terms: PriceTerms) -> Assessment:
        """How the cost of an event comes about; errors are those of `price`, and so is the cost."""
        at_us, tokens = terms.occurred_at_us, input_tokens(terms.quantities)
        targets = self.targets(terms.tool, terms.provider, terms.model)
        policy = self.rule((Target(terms.tool, None, None),), MISSING, at_us)
        lines: list[Line] = []
        estimated = False
        for unit, quantity in terms.quantities.items():
            if not isinstance(quantity, (int, Decimal)):
                raise TypeError(f"a quantity must be an int or a Decimal, not {type(quantity).__name__}")
            priced, excuse = self.find(targets, unit, at_us), None
            if priced is None and quantity and policy is not None:
                excuse = policy
                if policy.fallback is not None:
                    priced = self.find(self.model_targets(*policy.fallback), unit, at_us)
                    estimated = estimated or priced is not None
            if priced is not None:
                charged = charge(unit, quantity, priced, tokens, at_us)
                lines += charged if excuse is None else [line._replace(policy=excuse) for line in charged]
            elif not quantity or (policy is not None and policy.charge == "free"):
                lines.append(Line(unit, quantity, policy=excuse))
            else:
                raise self.missing(targets, unit, terms)
        subtotal = sum((line.exact for line in lines), Fraction(0))
        steps = settle(subtotal, self._rules(targets, terms))
        exact = steps[-1].exact if steps else subtotal
        cost = round(exact * PICO_PER_USD)
        if cost >= AMOUNT_LIMIT:
            raise _beyond(cost)
        return Assessment(lines, subtotal, steps, exact, cost, estimated)

    def _rules(self, targets: Sequence[TargetKey], terms: PriceTerms) -> list[PriceEntry]:
        """The rules for the whole event, its workspace's multiplier included."""
        at_us = terms.occurred_at_us
        rules = [self.rule(targets, unit, at_us) for unit in (FEE, MULTIPLIER, MINIMUM, MAXIMUM)]
        if terms.workspace in self._special:
            rules.append(self.rule(workspace_targets(terms.tool, terms.workspace), MULTIPLIER, at_us))
        return [rule for rule in rules if rule is not None]

    def missing_units(
        self, tool: str, provider: str | None, model: str | None, quantities: Quantities, occurred_at_us: int
    ) -> list[str]:
        """The units of an event that nothing prices, in its order."""
        missing = []
        for unit, quantity in quantities.items():
            try:
                self.assess(PriceTerms(tool, provider, model, {unit: quantity}, occurred_at_us))
            except PriceMissingError:
                missing.append(unit)
            except OutOfRangeError:
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

    def _compile(self, key: tuple[str | None, ...], plan: _Plan, index: int) -> Period:
        at = plan.changes[index - 1] if index else EVER
        period = plan.periods[index] = compile_period(self, plan.targets, plan.workspace, at)
        band = period.bands[0]
        if not period.thresholds and len(key) == 3 and band.limits is None:
            end = plan.changes[index] if index < len(plan.changes) else _NEVER
            self._current[key] = _Current(at, end, band.rates, band.denominator)
        return period


def _beyond(cost: int) -> OutOfRangeError:
    return OutOfRangeError(
        f"The cost is {cost // PICO_PER_USD:,} USD; the ledger holds amounts below 10^15. "
        "Check the quantities and the price."
    )
