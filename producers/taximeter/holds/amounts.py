"""Amounts of holds: whole microdollars, the held amount rounded up. No float touches them."""

from __future__ import annotations

from decimal import ROUND_CEILING, Context, Decimal, InvalidOperation
from typing import Final

from taximeter.errors import InvalidEventError

HOLD_USD_MAX: Final = Decimal(8_000_000_000)
_MICRO: Final = Decimal(1_000_000)
_CONTEXT: Final = Context(prec=60)


def to_microdollars(usd: Decimal | str | int) -> int:
    """USD as whole microdollars, rounded up.

    Raises:
        InvalidEventError: It is not an exact amount from 0 to 8 billion USD.
    """
    if isinstance(usd, bool) or not isinstance(usd, Decimal | str | int):
        raise InvalidEventError("bad_type", "max_cost", f"must be a Decimal, str or int, not {type(usd).__name__}")
    try:
        amount = Decimal(usd)
    except InvalidOperation:
        raise InvalidEventError("bad_number", "max_cost", 'must be an amount of USD, for example "0.05"') from None
    if not amount.is_finite():
        raise InvalidEventError("bad_number", "max_cost", "must be a finite amount of USD")
    if not 0 <= amount <= HOLD_USD_MAX:
        raise InvalidEventError("out_of_range", "max_cost", "must be from 0 to 8 billion USD")
    return int(_CONTEXT.multiply(amount, _MICRO).to_integral_value(ROUND_CEILING))


def to_usd(microdollars: int) -> Decimal:
    """Microdollars as USD, exactly."""
    return Decimal(microdollars).scaleb(-6)
