"""Quantities: from the digits on the wire to an exact int or Decimal, never through a float."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from taximeter.limits import QUANTITY_DECIMALS_MAX, QUANTITY_MAX
from taximeter_worker.decode.result import EventRejectedError

_LITERAL = re.compile(r"-?([0-9]++)(?:\.([0-9]++))?(?:[eE]([+-]?)0*+([0-9]*+))?", re.ASCII)
_EXPONENT_DIGITS_MAX: Final = 4
_DOUBLE_OVERFLOW: Final = Decimal("1.7976931348623158e308")


class Literal(str):
    """A JSON number, or one of NaN and ±Infinity, as it was written."""

    __slots__ = ()


def normalised(number: Decimal) -> int | Decimal | None:
    """The one form of a quantity: an int when integral, else a Decimal without trailing zeros.

    ``number`` is finite and at most `QUANTITY_MAX`, which keeps ``int`` small; its exponent may be anything.
    None when it is negative or has more than 6 decimals.
    """
    if not number:
        return 0
    sign, digits, exponent = number.as_tuple()
    if sign or not isinstance(exponent, int):
        return None
    if exponent >= 0:
        return int(number)
    end = len(digits)
    while digits[end - 1] == 0:
        end -= 1
    exponent += len(digits) - end
    if exponent >= 0:
        return int(number)
    if exponent < -QUANTITY_DECIMALS_MAX:
        return None
    return Decimal((0, digits[:end], exponent))


def quantity(literal: Literal, path: str) -> int | Decimal:
    """Read a quantity.

    Raises:
        EventRejectedError: ``bad_number``, ``negative_quantity``, ``out_of_range`` or ``too_precise``.
    """
    parts = _LITERAL.fullmatch(literal)
    if parts is None:
        raise EventRejectedError("bad_number", f"{path} is NaN or Infinity; send the number that was used.")
    whole, fraction, exponent_sign, exponent = parts.groups()
    if not (whole + (fraction or "")).strip("0"):
        return 0
    if literal.startswith("-"):
        raise EventRejectedError(
            "negative_quantity",
            f"{path} is negative; a usage counts from 0 up. To give money back, book a payment of kind refund.",
        )
    if len(exponent or "") > _EXPONENT_DIGITS_MAX:
        raise _too_precise(path) if exponent_sign == "-" else _out_of_range(path)
    number = Decimal(literal)
    if exponent and number >= _DOUBLE_OVERFLOW:
        raise EventRejectedError(
            "bad_number", f"{path} overflows: most programs read it as Infinity. Send a plain number."
        )
    if number > QUANTITY_MAX:
        raise _out_of_range(path)
    exact = normalised(number)
    if exact is None:
        raise _too_precise(path)
    return exact


def _out_of_range(path: str) -> EventRejectedError:
    return EventRejectedError("out_of_range", f"{path} is more than 10^15, the most one event can hold.")


def _too_precise(path: str) -> EventRejectedError:
    return EventRejectedError(
        "too_precise", f"{path} has more than {QUANTITY_DECIMALS_MAX} decimals; round it before publishing."
    )
