"""Receipts: how a cost came about, so that anyone can check it with a pocket calculator."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Final

import msgspec

from taximeter.pricing.charging import Line
from taximeter.pricing.price_book import PriceBook
from taximeter.pricing.price_index import PriceTerms, input_tokens, time_text
from taximeter_db.money import PICO_PER_USD, exact_text, format_usd
from taximeter_db.prices.store import plain, utc_text
from taximeter_db.prices.terms import RULES

ROUNDING: Final = "half-even to 10^-12 USD, once, on the total"


class ReceiptLine(msgspec.Struct, frozen=True):
    """One pool, or the part of it within one tier: `quantity` · `amount` / `per` = `cost` USD, exactly.

    `cost` is a decimal or, where a decimal would never end, a fraction such as ``"17/6000"``. `priced_as` differs from
    `unit` where a sub-pool takes its parent's price. `charge` says how: ``flat``, ``package`` (then `blocks` · `amount`
    is the cost), ``graduated`` (a line for each tier) or ``volume``; `above` is the tier's threshold: of input tokens for
    a flat price, else of the unit's own quantity. `hours` are set where the price of that time of day was taken.
    `policy` is set where the tool's policy for missing prices made the price: ``estimate`` or ``free``.
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
    charge: str | None = None
    blocks: int | None = None
    hours: str | None = None
    policy: str | None = None


class ReceiptStep(msgspec.Struct, frozen=True):
    """A rule for the whole event that was applied: after it the amount is `exact`."""

    rule: str
    target: str
    amount: str
    exact: str
    effective_from: str | None
    entry: int
    revision: int
    source: str


class Receipt(msgspec.Struct, frozen=True):
    """A whole receipt: the lines add up to `subtotal`, the steps lead from there to `exact`; `cost` is that rounded.

    `exact` plus `rounding` is `cost`. All in USD. `estimated` where a pool was priced by another model's prices.
    """

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
    subtotal: str = "0"
    steps: list[ReceiptStep] = []
    estimated: bool = False
    workspace: str | None = None


def explain(book: PriceBook, terms: PriceTerms) -> Receipt:
    """The receipt of an event under `book`, whose cost is that of `PriceBook.price`.

    To explain a booked usage, load the book at the usage's ``price_version``.

    Raises:
        PriceMissingError: Some unit has no price at that time.
        OutOfRangeError: The cost is 10¹⁵ USD or more.
    """
    assessment = book.assess(terms)
    return Receipt(
        tool=terms.tool,
        provider=terms.provider,
        model=terms.model,
        occurred_at=time_text(terms.occurred_at_us),
        price_version=book.revision,
        input_tokens=number_text(input_tokens(terms.quantities)),
        lines=[_line(line) for line in assessment.lines],
        subtotal=exact_text(assessment.subtotal),
        steps=[
            ReceiptStep(
                rule=RULES[step.entry.unit],
                target=str(step.entry.target),
                amount=plain(step.entry.amount),
                exact=exact_text(step.exact),
                effective_from=None if step.entry.effective_from is None else utc_text(step.entry.effective_from),
                entry=step.entry.id,
                revision=step.entry.revision,
                source=step.entry.source,
            )
            for step in assessment.steps
        ],
        exact=exact_text(assessment.exact),
        rounding=exact_text(Fraction(assessment.cost, PICO_PER_USD) - assessment.exact),
        cost=format_usd(assessment.cost),
        estimated=assessment.estimated,
        workspace=terms.workspace,
    )


def _line(line: Line) -> ReceiptLine:
    policy = None if line.policy is None else line.policy.charge
    if line.priced is None or line.amount is None:
        return ReceiptLine(line.unit, number_text(line.quantity), "0", policy=policy)
    entry = line.priced.entry
    return ReceiptLine(
        unit=line.unit,
        quantity=number_text(line.quantity),
        cost=exact_text(line.exact),
        priced_as=line.priced.unit,
        target=str(entry.target),
        amount=plain(line.amount),
        per=plain(entry.per),
        above=line.above,
        effective_from=None if entry.effective_from is None else utc_text(entry.effective_from),
        entry=entry.id,
        revision=entry.revision,
        source=entry.source,
        charge=entry.charge,
        blocks=line.blocks,
        hours=None if line.window is None else str(line.window),
        policy=policy,
    )


def number_text(quantity: int | Decimal) -> str:
    """Write a quantity without an exponent."""
    return str(quantity) if isinstance(quantity, int) else plain(quantity)
