"""AWS: the Cost and Usage Report 2.0 as CSV, of which the lines of Amazon Bedrock count."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final

from taximeter_worker.bills.lines import MILLION, THOUSAND, Line, day_of, number, rows, usd

COLUMNS: Final = (
    "line_item_line_item_type",
    "line_item_product_code",
    "line_item_usage_start_date",
    "line_item_usage_type",
    "line_item_usage_amount",
    "line_item_unblended_cost",
    "line_item_currency_code",
    "pricing_unit",
)
_COUNTED: Final = {"Usage", "DiscountedUsage", "SavingsPlanCoveredUsage"}
"""Taxes, credits, fees and refunds belong to no model."""
_BEDROCK: Final = "AmazonBedrock"
_REGION: Final = re.compile(r"^[A-Z]{2,4}[0-9]-")
_TYPE: Final = re.compile(r"^(?P<model>.+?)-(?:text-)?(?P<kind>cache-read|cache-write|input|output)-", re.IGNORECASE)
_UNITS: Final = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache-read": "cached_input_tokens",
    "cache-write": "cache_write_tokens",
}
_PER: Final = {"1k tokens": THOUSAND, "1m tokens": MILLION, "tokens": Decimal(1)}


def read(text: str) -> Iterator[Line]:
    """The lines of one file.

    Raises:
        BillError: It is not such a report.
    """
    for row in rows(text, COLUMNS, "a Cost and Usage Report 2.0 of AWS"):
        if row["line_item_product_code"] == _BEDROCK and row["line_item_line_item_type"] in _COUNTED:
            yield _line(row)


def _line(row: Mapping[str, str]) -> Line:
    usd(row["line_item_currency_code"])
    kind = _REGION.sub("", row["line_item_usage_type"])
    day, cost = day_of(row["line_item_usage_start_date"]), number(row["line_item_unblended_cost"], COLUMNS[5])
    if (found := _TYPE.match(kind)) is None:
        return Line(day, kind, None, None, cost)
    per = _PER.get(row["pricing_unit"].strip().lower())
    quantity = None if per is None else number(row["line_item_usage_amount"], COLUMNS[4]) * per
    return Line(day, found["model"], _UNITS[found["kind"].lower()], quantity, cost)
