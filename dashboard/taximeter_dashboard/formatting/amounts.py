"""Amounts as a person reads them. Integers of picodollars in, text out; never a float.

Costs are exact, with 2 to 12 decimals. Balances and totals have two, half-even, unless rounding would reach or cross a
limit: then the exact amount is the large one, because -$0.12 and -$0.120000000001 are not the same to whoever waits for AI.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

from taximeter_db.money import PICO_PER_USD, format_usd

MINUS = "\N{MINUS SIGN}"
_PICO_PER_CENT = PICO_PER_USD // 100
_ALMOST = "\N{ALMOST EQUAL TO}"
_LONG = 18
"""Letters that a row of a narrow phone has room for beside its time."""


def exact(pico: int) -> str:
    """All its digits, at least two decimals: ``$0.0000305``; minus 0.12 dollars with its sign in front."""
    whole, fraction = divmod(abs(pico), PICO_PER_USD)
    digits = f"{fraction:012d}".rstrip("0").ljust(2, "0")
    return f"{MINUS if pico < 0 else ''}${whole:,}.{digits}"


def signed(pico: int) -> str:
    """Exact, with a plus sign where it is positive: ``+$25.00``."""
    return exact(pico) if pico <= 0 else f"+{exact(pico)}"


def to_cents(pico: int) -> int:
    """The nearest whole cent, half-even, in picodollars."""
    quotient, rest = divmod(pico, _PICO_PER_CENT)
    if rest * 2 > _PICO_PER_CENT or (rest * 2 == _PICO_PER_CENT and quotient % 2):
        quotient += 1
    return quotient * _PICO_PER_CENT


def cents_up(pico: int) -> int:
    """The next whole cent that is not less, in picodollars: what somebody must pay at least."""
    return -(-pico // _PICO_PER_CENT) * _PICO_PER_CENT


def rounded(pico: int, limits: Iterable[int] = ()) -> str:
    """Two decimals; all digits where the rounded amount would reach or cross one of `limits`, or show 0 for something."""
    cents = to_cents(pico)
    for limit in (*limits, 0):
        if (pico < limit) != (cents < limit) or cents == limit != pico:
            return exact(pico)
    return exact(cents)


def exactly(pico: int, shown: str) -> str | None:
    """The exact amount, where `shown` is not it."""
    text = exact(pico)
    return None if text == shown else text


def average(total: int, count: int) -> str:
    """Four significant digits behind ``≈``; exact where it is."""
    if not count:
        return exact(0)
    quotient, rest = divmod(total, count)
    digits = len(str(quotient))
    unit = 10 ** max(0, digits - 4)
    near = (quotient + unit // 2) // unit * unit
    return exact(quotient) if not rest and near == quotient else f"{_ALMOST}{exact(near)}"


def decimals(pico: int) -> int:
    """How many decimals `exact` shows."""
    return max(2, len(format_usd(pico).partition(".")[2]))


def cell(pico: int, decimals_max: int, *, plus: bool = False) -> Markup:
    """An amount for a column: quiet leading zeros, and invisible ones behind, so that the points stand in line.

    The zeros behind are written by the style sheet, so that they are neither copied nor read out.
    """
    text = signed(pico) if plus else exact(pico)
    strong = next((place for place, letter in enumerate(text) if letter in "123456789"), len(text) - 3)
    if abs(pico) >= PICO_PER_USD or not pico:
        strong = 0
    quiet = Markup("<i>{}</i>").format(text[:strong]) if strong else ""
    pad = "0" * (decimals_max - decimals(pico))
    kind = "amount long" if len(text) + len(pad) > _LONG else "amount"
    return Markup('<data class="{}" value="{}"{}>{}{}</data>').format(
        kind, format_usd(pico), Markup(' data-pad="{}"').format(pad) if pad else "", quiet, text[strong:]
    )


def padded(texts: Sequence[str]) -> list[tuple[str, str]]:
    """The amounts of a column, each with the zeros that bring its point in line with the others'; as `cell` does."""
    places = [len(text.partition(".")[2]) for text in texts]
    widest = max(places, default=0)
    return [(text, "0" * (widest - places[place]) if text else "") for place, text in enumerate(texts)]


_AMOUNT = rf"[+{MINUS}{_ALMOST}]?\$[0-9][0-9,.]*[0-9]"
_WHOLE = re.compile(rf"(?P<amount>{_AMOUNT})|(?P<whole>\([0-9]+ [a-z]+\))")


def unbroken(text: str) -> Markup:
    """A sentence in which no line breaks within an amount, not even behind its sign, nor within ``(9 days)``."""
    pieces, end = [], 0
    for match in _WHOLE.finditer(text):
        whole = Markup('<span class="{}">{}</span>').format(match.lastgroup, match[0])
        pieces += [escape(text[end : match.start()]), whole]
        end = match.end()
    return Markup("").join([*pieces, escape(text[end:])])


def plain(pico: int) -> Markup:
    """An amount in a sentence or a fact, exact, with its value for machines."""
    return Markup('<data class="amount" value="{}">{}</data>').format(format_usd(pico), exact(pico))
