"""Anthropic: the cost report and the usage report of messages, as JSON."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from taximeter_worker.bills.lines import Line, day_of, document, number, shown, usd
from taximeter_worker.bills.pages import buckets
from taximeter_worker.errors import BillError

CENTS: Final = Decimal("0.01")
_UNITS: Final = {
    "uncached_input_tokens": "input_tokens",
    "cache_read_input_tokens": "cached_input_tokens",
    "cache_creation.ephemeral_5m_input_tokens": "cache_write_tokens",
    "cache_creation.ephemeral_1h_input_tokens": "cache_write_1h_tokens",
    "output_tokens": "output_tokens",
}


def read(text: str) -> Iterator[Line]:
    """The lines of one file.

    Raises:
        BillError: It is not one of these reports.
    """
    if not text.lstrip().startswith(("{", "[")):
        raise BillError(
            "This is not JSON. Ask the API for cost_report and usage_report/messages; exports in CSV are not read."
        )
    for bucket, results in buckets(document(text)):
        day = day_of(bucket.get("starting_at"))
        for result in results:
            if "amount" in result:
                yield _cost(day, result)
            elif "uncached_input_tokens" in result:
                yield from _usage(day, result)
            else:
                raise BillError("A result is neither of the cost report nor of the usage report of messages.")


def _cost(day: dt.date, result: Mapping[str, Any]) -> Line:
    usd(result.get("currency"))
    if result.get("cost_type") is None:
        raise BillError("The cost report is not by description: ask for it with group_by[]=description.")
    cost = number(result["amount"], "amount") * CENTS
    kind = result.get("token_type")
    if kind is not None and kind not in _UNITS:
        raise BillError(f"The token type {shown(kind)} is not known here.")
    return Line(day, str(result.get("model") or result["cost_type"]), _UNITS.get(kind or ""), None, cost)


def _usage(day: dt.date, result: Mapping[str, Any]) -> Iterator[Line]:
    if not result.get("model"):
        raise BillError("The usage report is not by model: ask for it with group_by[]=model.")
    written = result.get("cache_creation") or {}
    for name, unit in _UNITS.items():
        _, inner, short = name.partition("cache_creation.")
        count = written.get(short) if inner else result.get(name)
        yield Line(day, str(result["model"]), unit, number(count or Decimal(0), name))
