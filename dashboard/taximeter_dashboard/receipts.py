"""A receipt as the details show it; see docs/decisions/0071 for where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from taximeter_dashboard import amounts
from taximeter_dashboard.amounts import MINUS
from taximeter_db.reading import UsageRow

_PER = {"1000": "1K", "1000000": "1M"}


class Line(msgspec.Struct, frozen=True):
    """One pool of a receipt, as text."""

    unit: str
    quantity: str
    price: str
    amount: str
    note: str = ""
    pad: str = ""
    """Zeros that bring the points of a column in line."""


class ReceiptView(msgspec.Struct, frozen=True):
    """A receipt, as text."""

    lines: list[Line]
    exact: str
    rounding: str | None
    rule: str
    version: int
    since: str | None
    pad: str


def view(row: UsageRow, receipt: Mapping[str, Any] | None) -> ReceiptView | None:
    """What to show; None where there is no receipt."""
    if receipt is None:
        return None
    lines = [_line(line) for line in receipt["lines"]]
    widest = max([_decimals(line.amount) for line in lines] + [_decimals(amounts.exact(row.cost))])
    lines = [msgspec.structs.replace(line, pad="0" * (widest - _decimals(line.amount))) for line in lines]
    starts = sorted({line["effective_from"] for line in receipt["lines"] if line.get("effective_from")})
    rounding = receipt["rounding"]
    return ReceiptView(
        lines=lines,
        exact=dollars(receipt["exact"]),
        rounding=None if rounding == "0" else dollars(rounding),
        rule=receipt["rule"],
        version=row.price_version,
        since=starts[-1] if starts else None,
        pad="0" * (widest - _decimals(amounts.exact(row.cost))),
    )


def unit_words(unit: str) -> str:
    """``cached_input_tokens`` as words."""
    return unit.replace("_", " ")


def quantity(value: str | int | Decimal) -> str:
    """In full, with thousands separators."""
    text = f"{Decimal(value):,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def dollars(text: str) -> str:
    """An exact decimal, or a fraction, in USD."""
    sign = MINUS if text.startswith("-") else ""
    text = text.lstrip("-")
    if "/" in text:
        return f"{sign}${text}"
    whole, _, fraction = text.partition(".")
    return f"{sign}${int(whole):,}.{fraction.ljust(2, '0')}"


def _decimals(text: str) -> int:
    return len(text.partition(".")[2])


def _line(line: Mapping[str, Any]) -> Line:
    notes = []
    if line.get("priced_as") not in {None, line["unit"]}:
        notes.append(f"priced as {unit_words(line['priced_as'])}")
    if line.get("above") is not None:
        notes.append(f"above {quantity(line['above'])} input tokens")
    if line.get("target"):
        notes.append(f"{line['target']}, {line['source']}" if line.get("source") else str(line["target"]))
    return Line(
        unit=unit_words(line["unit"]),
        quantity=quantity(line["quantity"]),
        price=_price(line.get("amount"), line.get("per")),
        amount=dollars(line["cost"]),
        note=", ".join(notes),
    )


def _price(amount: str | None, per: str | None) -> str:
    if amount is None or per is None:
        return "no price needed"
    whole = per.rstrip("0").rstrip(".") if "." in per else per
    if whole == "1":
        return f"{dollars(amount)} each"
    text = f"{dollars(amount)} per {_PER.get(whole, quantity(whole))}"
    try:
        each = Decimal(amount) / Decimal(per)
    except InvalidOperation:
        return text
    # Said only where it is exact.
    if each * Decimal(per) == Decimal(amount) and each.as_tuple().exponent >= -15:  # type: ignore[operator]
        text += f" ({dollars(f'{each.normalize():f}')} each)"
    return text
