"""What every bill is read into: lines of a day, a model and a unit."""

from __future__ import annotations

import csv
import datetime as dt
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from taximeter_worker.errors import BillError

TEXT_SHOWN_MAX: Final = 80
THOUSAND: Final = Decimal(1_000)
MILLION: Final = Decimal(1_000_000)


class Line(msgspec.Struct, frozen=True):
    """One line of a bill. `cost` in USD, or None where the file only counts; `quantity` None where it only costs.

    `unit` is one of ours (`taximeter.names.STANDARD_UNITS`), or None where the line does not say what it counts.
    """

    day: dt.date
    model: str
    unit: str | None = None
    quantity: Decimal | None = None
    cost: Decimal | None = None


def document(text: str) -> Any:
    """JSON with exact numbers.

    Raises:
        BillError: It is none.
    """
    try:
        return json.loads(text, parse_float=Decimal, parse_int=Decimal)
    except (ValueError, RecursionError) as error:
        raise BillError("The file is not JSON.") from error


def rows(text: str, needed: Sequence[str], what: str) -> Iterator[Mapping[str, str]]:
    """The rows of a CSV file with a header.

    Raises:
        BillError: A column that is needed is missing, or a row has more cells than the header.
    """
    reader = csv.DictReader(text.splitlines())
    present = reader.fieldnames or []
    if missing := [column for column in needed if column not in present]:
        raise BillError(
            f"This is not {what}: there is no column {', '.join(missing)}. Its columns are"
            f" {', '.join(shown(one) for one in present[:12])}."
        )
    for row in reader:
        if None in row or None in row.values():
            raise BillError(f"Line {reader.line_num} has not as many cells as the header.")
        yield row


def number(given: object, what: str) -> Decimal:
    """An exact number.

    Raises:
        BillError: It is none.
    """
    try:
        value = given if isinstance(given, Decimal) else Decimal(str(given).strip().replace(",", ""))
    except InvalidOperation:
        raise BillError(f"{what} is {shown(given)}, which is not a number.") from None
    if isinstance(given, bool) or not value.is_finite():
        raise BillError(f"{what} is {shown(given)}, which is not a number.")
    return value


def usd(currency: object) -> None:
    """Refuse another currency than the ledger's.

    Raises:
        BillError: It is another.
    """
    if str(currency).upper() != "USD":
        raise BillError(f"The bill is in {shown(currency)}; the ledger is in USD. Ask the provider for a bill in USD.")


def day_of(text: object) -> dt.date:
    """The UTC day of a time: RFC 3339, the same with a space, or a date.

    Raises:
        BillError: It is none.
    """
    try:
        moment = dt.datetime.fromisoformat(re.sub(r" UTC$", "Z", str(text)))
    except ValueError:
        raise BillError(f"{shown(text)} is not a time.") from None
    return (moment if moment.tzinfo is None else moment.astimezone(dt.UTC)).date()


def day_of_seconds(seconds: object) -> dt.date:
    """The UTC day of a Unix time.

    Raises:
        BillError: It is none.
    """
    try:
        return dt.datetime.fromtimestamp(int(number(seconds, "start_time")), dt.UTC).date()
    except (OverflowError, ValueError, OSError):
        raise BillError(f"{shown(seconds)} is not a Unix time.") from None


def shown(value: object) -> str:
    """A value for an error's sentence, cut short."""
    return repr(str(value)[:TEXT_SHOWN_MAX])
