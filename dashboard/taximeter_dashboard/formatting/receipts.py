"""A receipt as the details show it; see docs/decisions/0071 for where it comes from."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec

from taximeter_dashboard.formatting import amounts
from taximeter_dashboard.formatting.amounts import MINUS
from taximeter_db.money import PICO_PER_USD, exact_text
from taximeter_db.queries.usages import UsageRow

_PER = {"1000": "1K", "1000000": "1M"}
_TIMES = "\N{MULTIPLICATION SIGN}"
_EACH_MAX = 18
_POLICIES = {
    "estimate": "no price of its own: estimated by another model's",
    "free": "no price of its own: free by the tool's policy",
}


class Line(msgspec.Struct, frozen=True):
    """One pool of a receipt, or a part of it, as text."""

    unit: str
    quantity: str
    price: str
    amount: str
    note: str = ""
    pad: str = ""
    """Zeros that bring the points of a column in line."""


class Step(msgspec.Struct, frozen=True):
    """A rule for the whole event, and by how much it moved the amount."""

    rule: str
    note: str
    amount: str
    pad: str = ""


class ReceiptView(msgspec.Struct, frozen=True):
    """A receipt, as text: the lines add up to the subtotal, that and the steps and the rounding to the total."""

    lines: list[Line]
    subtotal: Step | None
    steps: list[Step]
    rounding: Step | None
    version: int
    since: dt.datetime | None
    estimated: bool
    pad: str


def view(row: UsageRow, receipt: Mapping[str, Any] | None) -> ReceiptView | None:
    """What to show; None where there is no receipt."""
    if receipt is None:
        return None
    lines = [_line(line) for line in receipt["lines"]]
    steps = list(_steps(receipt))
    subtotal = Step("Subtotal", "", dollars(receipt["subtotal"])) if steps else None
    rounding = receipt["rounding"]
    rest = None if rounding == "0" else Step("Rounding", receipt["rule"], signed(rounding))
    shown = [one.amount for one in (*lines, *steps, subtotal, rest) if one is not None]
    widest = max(map(_decimals, [*shown, amounts.exact(row.cost)]))
    starts = {line["effective_from"] for line in (*receipt["lines"], *receipt["steps"]) if line.get("effective_from")}
    return ReceiptView(
        lines=[msgspec.structs.replace(line, pad=_pad(line.amount, widest)) for line in lines],
        subtotal=_padded(subtotal, widest),
        steps=[msgspec.structs.replace(step, pad=_pad(step.amount, widest)) for step in steps],
        rounding=_padded(rest, widest),
        version=row.price_version,
        since=max(map(dt.datetime.fromisoformat, starts), default=None),
        estimated=receipt["estimated"],
        pad=_pad(amounts.exact(row.cost), widest),
    )


def _steps(receipt: Mapping[str, Any]) -> Iterator[Step]:
    before = Fraction(receipt["subtotal"])
    for step in receipt["steps"]:
        after = Fraction(step["exact"])
        how = f"{_TIMES} {step['amount']}" if step["rule"] == "multiplier" else dollars(step["amount"])
        note = ", ".join(part for part in (how, step["target"], step["source"]) if part)
        yield Step(step["rule"].capitalize(), note, signed(exact_text(after - before)))
        before = after


def _padded(step: Step | None, widest: int) -> Step | None:
    return None if step is None else msgspec.structs.replace(step, pad=_pad(step.amount, widest))


def _pad(text: str, widest: int) -> str:
    return "" if "/" in text else "0" * (widest - _decimals(text))


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
        # No decimal ends there: the fraction is exact, and how much it is about stands beside it.
        top, _, bottom = text.partition("/")
        return f"{sign}${text} ({amounts.average(int(top) * PICO_PER_USD, int(bottom))})"
    whole, _, fraction = text.partition(".")
    return f"{sign}${int(whole):,}.{fraction.ljust(2, '0')}"


def signed(text: str) -> str:
    """Like `dollars`, with a plus sign where it is positive."""
    return dollars(text) if text.startswith("-") or Fraction(text) == 0 else f"+{dollars(text)}"


def _decimals(text: str) -> int:
    return 0 if "/" in text else len(text.partition(".")[2])


def _line(line: Mapping[str, Any]) -> Line:
    notes = []
    if line.get("priced_as") not in {None, line["unit"]}:
        notes.append(f"priced as {unit_words(line['priced_as'])}")
    if line.get("above") is not None:
        what = "input tokens" if line.get("charge") in {None, "flat"} else unit_words(line["unit"])
        notes.append(
            f"{'the part ' if line.get('charge') == 'graduated' else ''}above {quantity(line['above'])} {what}"
        )
    if line.get("hours"):
        notes.append(str(line["hours"]).replace("-", " to "))
    if line.get("policy"):
        notes.append(_POLICIES.get(line["policy"], str(line["policy"])))
    if line.get("target"):
        notes.append(f"{line['target']}, {line['source']}" if line.get("source") else str(line["target"]))
    return Line(
        unit=unit_words(line["unit"]),
        quantity=quantity(line["quantity"]),
        price=_price(line),
        amount=dollars(line["cost"]),
        note=", ".join(notes),
    )


def _price(line: Mapping[str, Any]) -> str:
    amount, per = line.get("amount"), line.get("per")
    if amount is None or per is None:
        return "free" if line.get("policy") else "no price needed"
    whole = per.rstrip("0").rstrip(".") if "." in per else per
    if line.get("blocks") is not None:
        many = "block" if line["blocks"] == 1 else "blocks"
        return f"{quantity(line['blocks'])} {many} of {_PER.get(whole, quantity(whole))} begun, {dollars(amount)} each"
    if whole == "1":
        return f"{dollars(amount)} each"
    text = f"{dollars(amount)} per {_PER.get(whole, quantity(whole))}"
    each = Fraction(amount) / Fraction(per)
    # Said only where it is a decimal of a bearable length.
    written = exact_text(each)
    return text if "/" in written or len(written) > _EACH_MAX else f"{text} ({dollars(written)} each)"
