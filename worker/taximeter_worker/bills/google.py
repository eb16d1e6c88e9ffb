"""Google Cloud: the billing export of BigQuery as JSON, a row a line, and the console's cost table as CSV."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

from taximeter_worker.bills.lines import Line, day_of, document, number, rows, usd
from taximeter_worker.errors import BillError

_SERVICES: Final = {"Vertex AI", "Gemini API", "Generative Language API"}
_COLUMNS: Final = (
    "Service description",
    "SKU description",
    "Cost type",
    "Usage start date",
    "Usage amount",
    "Usage unit",
)
_COST: Final = re.compile(r"Unrounded [Cc]ost \((?P<currency>[^)]+)\)")
_SKU: Final = re.compile(r"^(?P<model>Gemini [0-9.]+(?: (?:Pro|Flash|Lite|Nano|Ultra))*)(?P<rest>.*)$", re.IGNORECASE)
_KINDS: Final = (("cach", "cached_input_tokens"), ("output", "output_tokens"), ("input", "input_tokens"))
"""The first word that a SKU holds says what it counts: cached input is input, too."""


def read(text: str) -> Iterator[Line]:
    """The lines of one file.

    Raises:
        BillError: It is not one of these exports.
    """
    return _export(text) if text.lstrip().startswith("{") else _table(text)


def _export(text: str) -> Iterator[Line]:
    for line in filter(str.strip, text.splitlines()):
        row = document(line)
        try:
            service, sku, usage = row["service"]["description"], row["sku"]["description"], row["usage"]
            kind, start, cost, currency = row["cost_type"], row["usage_start_time"], row["cost"], row["currency"]
            amount, unit = usage["amount"], usage["unit"]
        except (KeyError, TypeError):
            raise BillError(
                "A row is not one of the billing export: it needs service, sku, usage, usage_start_time, cost, cost_type"
                " and currency."
            ) from None
        if service in _SERVICES and kind == "regular":
            usd(currency)
            yield _line(start, sku, (amount, unit), cost)


def _table(text: str) -> Iterator[Line]:
    header = text.partition("\n")[0]
    found = _COST.search(header)
    for row in rows(text, _COLUMNS, "a cost table of Google Cloud"):
        if found is None:
            raise BillError("The cost table has no column of unrounded costs.")
        if row["Service description"] in _SERVICES and row["Cost type"].lower() in {"usage", "regular"}:
            usd("USD" if found["currency"] == "$" else found["currency"])
            amount = (row["Usage amount"], row["Usage unit"])
            yield _line(row["Usage start date"], row["SKU description"], amount, row[found[0]])


def _line(start: Any, sku: str, amount: tuple[Any, str], cost: Any) -> Line:
    day, charged = day_of(start), number(cost, "cost")
    match = _SKU.match(sku)
    if match is None:
        return Line(day, sku, None, None, charged)
    unit = next((ours for word, ours in _KINDS if word in match["rest"].lower()), None)
    counts = amount[1].strip().lower() in {"count", "tokens", "token"}
    quantity: Decimal | None = number(amount[0], "usage.amount") if counts and unit else None
    return Line(day, match["model"], unit, quantity, charged)
