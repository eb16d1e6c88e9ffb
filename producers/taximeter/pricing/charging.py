"""How one price charges one quantity, and how a whole event's cost is put together: exactly, in rational numbers.

This is the complete way. It makes the receipts, and prices every event that is not simply linear. `PriceBook` has a
faster way for linear ones, with the same results (a property test compares the two).
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from taximeter.pricing.terms import (
    DAY_SECONDS,
    FEE,
    MAXIMUM,
    MINIMUM,
    MULTIPLIER,
    PriceEntry,
    PriceWindow,
)

Quantity = int | Decimal


class Priced(NamedTuple):
    """The entry that prices a unit, and as which unit: its own, or an ancestor."""

    entry: PriceEntry
    unit: str


class Line(NamedTuple):
    """A part of an event's cost: `quantity` · `amount` / per, or `blocks` · `amount`; `exact` in USD.

    A graduated price makes one line for each tier that the quantity reaches into. `policy` is the entry that makes a unit
    without a price free, or an estimate. Without `priced` the line costs nothing.
    """

    unit: str
    quantity: Quantity
    priced: Priced | None = None
    amount: Decimal | None = None
    exact: Fraction = Fraction(0)
    above: int | None = None
    blocks: int | None = None
    window: PriceWindow | None = None
    policy: PriceEntry | None = None


class Step(NamedTuple):
    """A rule for the whole event, and the amount (exact, USD) after it."""

    entry: PriceEntry
    exact: Fraction


class Assessment(NamedTuple):
    """An event's cost: `lines` add up to `subtotal`, `steps` lead to `exact`, rounded once to `cost` picodollars."""

    lines: list[Line]
    subtotal: Fraction
    steps: list[Step]
    exact: Fraction
    cost: int
    estimated: bool


def is_linear(entry: PriceEntry) -> bool:
    """Whether a quantity always costs that quantity times one rate, given the event's input tokens."""
    return entry.charge == "flat" and not entry.daily


def charge(unit: str, quantity: Quantity, priced: Priced, input_tokens: Quantity, at_us: int) -> list[Line]:
    """The lines that one price makes of one quantity."""
    entry = priced.entry
    line = Line(unit, quantity, priced)
    per = Fraction(entry.per)
    if entry.charge == "package":
        blocks = -(-Fraction(quantity) // per)
        return [line._replace(amount=entry.amount, blocks=int(blocks), exact=blocks * Fraction(entry.amount))]
    if entry.charge == "graduated":
        return _graduated(line, entry, per)
    if entry.daily:
        second = at_us // 1_000_000 % DAY_SECONDS
        window = next((window for window in entry.daily if window.start <= second < window.end), None)
        amount, above = (entry.amount if window is None else window.amount), None
    else:
        window = None
        amount, above = tier_amount(entry, input_tokens if entry.charge == "flat" else quantity)
    exact = Fraction(quantity) * Fraction(amount) / per
    return [line._replace(amount=amount, above=above, window=window, exact=exact)]


def tier_amount(entry: PriceEntry, measure: Quantity) -> tuple[Decimal, int | None]:
    """USD per ``entry.per`` units where that much is used, and the threshold of the tier, if any."""
    amount, above = entry.amount, None
    for tier in entry.tiers:
        if measure > tier.above:
            amount, above = tier.amount, tier.above
    return amount, above


def _graduated(line: Line, entry: PriceEntry, per: Fraction) -> list[Line]:
    lines = []
    starts = [0, *(tier.above for tier in entry.tiers)]
    amounts = [entry.amount, *(tier.amount for tier in entry.tiers)]
    for index, (start, amount) in enumerate(zip(starts, amounts, strict=True)):
        end = starts[index + 1] if index + 1 < len(starts) else None
        # Quantities have at most 15 + 6 digits, so that a Decimal's difference is exact.
        part = (line.quantity if end is None else min(line.quantity, end)) - start
        if part > 0 or (index == 0 and (part == 0 and line.quantity == 0)):
            exact = Fraction(part) * Fraction(amount) / per
            lines.append(line._replace(quantity=part, amount=amount, above=start or None, exact=exact))
    return lines


def settle(subtotal: Fraction, rules: list[PriceEntry]) -> list[Step]:
    """Apply the rules for the whole event in their order: charge per event, multipliers, minimum, maximum."""
    steps = []
    total = subtotal
    for rule in sorted(rules, key=lambda rule: (FEE, MULTIPLIER, MINIMUM, MAXIMUM).index(rule.unit)):
        amount = Fraction(rule.amount)
        if rule.unit == FEE:
            after = total + amount
        elif rule.unit == MULTIPLIER:
            after = total * amount
        elif rule.unit == MINIMUM:
            after = max(total, amount)
        else:
            after = min(total, amount)
        if after != total or rule.unit == MULTIPLIER:
            steps.append(Step(rule, after))
        total = after
    return steps
