"""Receipts: how a cost came about, so that anyone can compute it again by hand."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Final

import msgspec

from taximeter_db.money import PICO_PER_USD, format_usd
from taximeter_db.prices import plain, utc_text
from taximeter_worker.pricing.book import PriceBook, Quantities, input_tokens, time_text

ROUNDING: Final = "half-even to 10^-12 USD, once, on the total"


class ReceiptLine(msgspec.Struct, frozen=True):
    """One pool: `quantity` · `amount` / `per` = `cost` USD, exactly.

    `cost` is a decimal or, where a decimal would never end, a fraction such as ``"17/6000"``. `priced_as` differs from
    `unit` where a sub-pool takes its parent's price. `above` is the long-context tier's threshold of input tokens.
    A pool of quantity 0 without a price has no price fields and costs "0".
    """

    unit: str
    quantity: str
    cost: str
    priced_as: str | None = None
    target: str | None = None
    amount: str | None = None
    per: str | None = None
    above: int | None = None
    effective_from: str | None = None
    entry: int | None = None
    revision: int | None = None
    source: str | None = None


class Receipt(msgspec.Struct, frozen=True):
    """A whole receipt: the lines' exact sum `exact`, plus `rounding`, is `cost`. All in USD."""

    tool: str
    provider: str | None
    model: str | None
    occurred_at: str
    price_version: int
    input_tokens: str
    lines: list[ReceiptLine]
    exact: str
    rounding: str
    cost: str
    rule: str = ROUNDING


def exact_text(value: Fraction) -> str:
    """Write a rational number: as the shortest plain decimal if it has one, else as ``numerator/denominator``."""
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    places = max(twos, fives)
    scaled = abs(value.numerator) * 10**places // value.denominator
    digits = str(scaled).rjust(places + 1, "0")
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}" if places else f"{sign}{digits}"


def explain(
    book: PriceBook,
    tool: str,
    provider: str | None,
    model: str | None,
    quantities: Quantities,
    occurred_at_us: int,
) -> Receipt:
    """The receipt of an event under `book`; the arguments are those of `PriceBook.price`, and so is its cost.

    To explain a booked usage, load the book at the usage's ``price_version``.

    Raises:
        PriceMissing: Some unit has no price at that time.
        OutOfRange: The cost is 10¹⁵ USD or more.
    """
    cost = book.price(tool, provider, model, quantities, occurred_at_us)
    targets = book.targets(tool, provider, model)
    tokens = input_tokens(quantities)
    total = Fraction(0)
    lines = []
    for unit, quantity in quantities.items():
        priced = book.find(targets, unit, occurred_at_us)
        if priced is None:
            lines.append(ReceiptLine(unit, number_text(quantity), "0"))
            continue
        entry = priced.entry
        amount, above = priced.amount(tokens)
        exact = Fraction(quantity) * Fraction(amount) / Fraction(entry.per)
        total += exact
        lines.append(
            ReceiptLine(
                unit=unit,
                quantity=number_text(quantity),
                cost=exact_text(exact),
                priced_as=priced.unit,
                target=str(entry.target),
                amount=plain(amount),
                per=plain(entry.per),
                above=above,
                effective_from=None if entry.effective_from is None else utc_text(entry.effective_from),
                entry=entry.id,
                revision=entry.revision,
                source=entry.source,
            )
        )
    return Receipt(
        tool=tool,
        provider=provider,
        model=model,
        occurred_at=time_text(occurred_at_us),
        price_version=book.revision,
        input_tokens=number_text(tokens),
        lines=lines,
        exact=exact_text(total),
        rounding=exact_text(Fraction(cost, PICO_PER_USD) - total),
        cost=format_usd(cost),
    )


def number_text(quantity: int | Decimal) -> str:
    """Write a quantity without an exponent."""
    return str(quantity) if isinstance(quantity, int) else plain(quantity)
