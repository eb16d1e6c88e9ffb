"""Exact money: integers of picodollars inside, decimal strings and ``numeric(27,12)`` outside.

One picodollar is 10⁻¹² USD, the resolution of every cost. Integers because they are exact, unbounded and
about a fifth faster to sum than Decimals; see docs/decisions/0001-money-as-picodollars.md.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from typing import Final

from taximeter_db.errors import AmountError

PICO_PER_USD: Final = 10**12
MINIMUM_BALANCE_DEFAULT: Final = -120_000_000_000
"""The lowest balance at which AI stays enabled, where neither platform nor workspace says otherwise."""
LOW_BALANCE_DEFAULT: Final = 0
"""The low-balance threshold, likewise."""
AMOUNT_LIMIT: Final = 10**15 * PICO_PER_USD
"""Amounts and balances lie strictly between -limit and +limit: what ``numeric(27,12)`` can hold."""

_AMOUNT = re.compile(r"[+-]?(?:[0-9]{1,15})(?:\.[0-9]{1,12})?", re.ASCII)


def parse_usd(text: str) -> int:
    """Read a plain decimal string such as ``"-0.12"`` as picodollars.

    Raises:
        AmountError: Not a plain decimal (exponents, NaN, separators and blanks are refused), more than
            12 decimals, or 10¹⁵ USD and more.
    """
    if _AMOUNT.fullmatch(text):
        whole, _, fraction = text.partition(".")
        return int(whole + fraction.ljust(12, "0"))
    raise AmountError(
        f"{text[:40]!r} is not an amount in USD. Write plain digits with a point, at most 12 decimals "
        'and below 10^15, such as "25.00" or "-0.12".'
    )


def to_pico(amount: Decimal | str | int) -> int:
    """Convert an amount in USD to picodollars, exactly.

    Raises:
        AmountError: Not finite, finer than a picodollar, or out of range. A float is refused by its type.
    """
    if isinstance(amount, str):
        return parse_usd(amount)
    if isinstance(amount, bool) or not isinstance(amount, (int, Decimal)):
        raise AmountError(f"An amount must be a Decimal, an int or a decimal string, not {type(amount).__name__}.")
    if isinstance(amount, int):
        pico = amount * PICO_PER_USD
    else:
        if not amount.is_finite():
            raise AmountError(f"An amount must be a finite number, not {amount}.")
        if amount.adjusted() > 15:  # before any expansion: 1E+999999999 must cost nothing
            raise AmountError("An amount must lie within ±10^15 USD.")
        sign, digits, exponent = amount.as_tuple()
        shift = int(exponent) + 12
        unscaled = int("".join(map(str, digits)))
        if shift >= 0:
            pico = unscaled * 10**shift
        else:
            if -shift > len(digits) + 12:
                quotient, rest = 0, unscaled
            else:
                quotient, rest = divmod(unscaled, 10**-shift)
            if rest:
                raise AmountError(f"{amount} has more than 12 decimals; the resolution of an amount is 10^-12 USD.")
            pico = quotient
        pico = -pico if sign else pico
    if not -AMOUNT_LIMIT < pico < AMOUNT_LIMIT:
        raise AmountError("An amount must lie within ±10^15 USD.")
    return pico


def format_usd(pico: int) -> str:
    """Write picodollars as the shortest plain decimal string: ``762500000`` → ``"0.0007625"``."""
    if pico < 0:
        return "-" + format_usd(-pico)
    digits = str(pico).zfill(13)
    return f"{digits[:-12]}.{digits[-12:]}".rstrip("0").rstrip(".")


def from_numeric_text(text: str) -> int:
    """Read the text of a ``numeric(27,12)``, which always shows 12 decimals, as picodollars."""
    return int(text.replace(".", ""))


def numeric_text(pico: int) -> str:
    """Write picodollars with all 12 decimals, as PostgreSQL shows a ``numeric(27,12)``."""
    sign = "-" if pico < 0 else ""
    whole, fraction = divmod(abs(pico), PICO_PER_USD)
    return f"{sign}{whole}.{fraction:012d}"


def status_of(balance: int, minimum: int, low: int) -> str:
    """Status of a balance: ``sufficient`` from the low threshold up, ``low`` from the minimum up, else ``insufficient``.

    The same rule as the SQL function ``taximeter.balance_status``.
    """
    if balance >= low:
        return "sufficient"
    return "low" if balance >= minimum else "insufficient"


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
