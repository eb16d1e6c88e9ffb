"""The rates of one period: all prices between two changes, as integers over one common denominator.

A band of rates holds up to some number of input tokens (long-context tiers); within it a cost is a sum of products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from math import lcm
from typing import NamedTuple

from taximeter.names import PARENT_UNITS
from taximeter.pricing.charging import is_linear, tier_amount
from taximeter.pricing.price_index import PriceIndex, Quantities
from taximeter.pricing.terms import FEE, MAXIMUM, MINIMUM, MULTIPLIER, PICO_PER_USD, TargetKey


class Band(NamedTuple):
    """Rates in picodollars·`denominator` per unit, up to some number of input tokens.

    `limits`, if there are any: charge per event, minimum and maximum, likewise in picodollars·`denominator`.
    """

    rates: dict[str, int]
    denominator: int
    limits: tuple[int, int, int | None] | None


class Period(NamedTuple):
    """The rates between two changes of price: ``bands[i]`` holds up to ``thresholds[i]`` input tokens."""

    thresholds: tuple[int, ...]
    bands: tuple[Band, ...]


def compile_period(
    index: PriceIndex, targets: Sequence[TargetKey], workspace: Sequence[TargetKey], at_us: int
) -> Period:
    """The rates that hold from `at_us` until the next change of price, for an event's targets and its workspace's."""
    units = {unit for target in targets for unit in index.units(target)} | set(PARENT_UNITS)
    applying = {unit: price for unit in units if (price := index.find(targets, unit, at_us)) is not None}
    prices = {unit: price for unit, price in applying.items() if is_linear(price.entry)}
    factor = Fraction(1)
    for candidates in (targets, workspace):
        multiplier = index.rule(candidates, MULTIPLIER, at_us)
        factor *= 1 if multiplier is None else Fraction(multiplier.amount)
    thresholds = tuple(sorted({tier.above for price in prices.values() for tier in price.entry.tiers}))
    limits = _limits(index, targets, factor, at_us)
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
        bands.append(Band(rates, denominator, (fee or 0, least or 0, most) if known else None))
    return Period(thresholds, tuple(bands))


def _limits(
    index: PriceIndex, targets: Sequence[TargetKey], factor: Fraction, at_us: int
) -> tuple[Fraction | None, ...]:
    """Charge per event (multiplied), minimum and maximum, in picodollars."""
    rules = (index.rule(targets, unit, at_us) for unit in (FEE, MINIMUM, MAXIMUM))
    fee, least, most = (None if rule is None else Fraction(rule.amount) * PICO_PER_USD for rule in rules)
    return (None if fee is None else fee * factor, least, most)


def price_exactly(quantities: Quantities, rates: Mapping[str, int], denominator: int) -> int:
    """Cost of decimal quantities: their products with integers could be rounded to the decimal context."""
    total, scale = 0, 1
    for unit, quantity in quantities.items():
        if not isinstance(quantity, (int, Decimal)):
            raise TypeError(f"a quantity must be an int or a Decimal, not {type(quantity).__name__}")
        numerator, divisor = quantity.as_integer_ratio()
        total = total * divisor + numerator * rates.get(unit, 0) * scale
        scale *= divisor
    return divide_half_even(total, scale * denominator)


def divide_half_even(numerator: int, denominator: int) -> int:
    """Divide integers and round to the nearest one, a tie to the even one. `denominator` is positive."""
    quotient, rest = divmod(numerator, denominator)
    doubled = rest * 2
    if doubled > denominator or (doubled == denominator and quotient & 1):
        quotient += 1
    return quotient
