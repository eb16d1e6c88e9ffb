"""OpenAI: the organization's costs as JSON or CSV, and its usage of completions as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from taximeter_worker.bills.lines import Line, day_of_seconds, document, number, rows, shown, usd
from taximeter_worker.bills.pages import buckets
from taximeter_worker.errors import BillError

_COSTS: Final = "organization.costs.result"
_USAGE: Final = "organization.usage.completions.result"
_COLUMNS: Final = ("start_time", "amount_value", "amount_currency", "line_item")
_UNITS: Final = {
    "input": "input_tokens",
    "cached input": "cached_input_tokens",
    "output": "output_tokens",
    "audio input": "input_audio_tokens",
    "cached audio input": "cached_input_audio_tokens",
    "audio output": "output_audio_tokens",
    "image input": "input_image_tokens",
    "image output": "output_image_tokens",
}
"""What stands behind the comma of a line item: ``gpt-4o-2024-08-06, cached input``."""


def read(text: str) -> Iterator[Line]:
    """The lines of one file.

    Raises:
        BillError: It is not one of these forms.
    """
    if not text.lstrip().startswith(("{", "[")):
        for row in rows(text, _COLUMNS, "an export of OpenAI's costs"):
            usd(row["amount_currency"])
            model, unit = _item(row["line_item"])
            day = day_of_seconds(row["start_time"])
            quantity = number(row["quantity"], "quantity") if row.get("quantity") else None
            yield Line(day, model, unit, quantity, number(row["amount_value"], "amount_value"))
        return
    for bucket, results in buckets(document(text), "object", "page"):
        day = day_of_seconds(bucket.get("start_time"))
        for result in results:
            match result.get("object"):
                case "organization.costs.result":
                    yield _cost(day, result)
                case "organization.usage.completions.result":
                    yield from _usage(day, result)
                case kind:
                    raise BillError(f"A result is {shown(kind)}; what is read here is {_COSTS} and {_USAGE}.")


def _cost(day: Any, result: Mapping[str, Any]) -> Line:
    amount = result.get("amount")
    if not isinstance(amount, Mapping):
        raise BillError("A result has no amount.")
    usd(amount.get("currency"))
    if result.get("line_item") is None:
        raise BillError("The costs are not by line item: ask for them with group_by=line_item.")
    model, unit = _item(str(result["line_item"]))
    quantity = None if result.get("quantity") is None else number(result["quantity"], "quantity")
    return Line(day, model, unit, quantity, number(amount.get("value"), "amount.value"))


def _usage(day: Any, result: Mapping[str, Any]) -> Iterator[Line]:
    if not result.get("model"):
        raise BillError("The usage is not by model: ask for it with group_by=model.")
    model = str(result["model"])
    counts = {name: number(result.get(name) or Decimal(0), name) for name in _COUNTED}
    cached, audio = counts["input_cached_tokens"], counts["input_audio_tokens"]
    # their input has cached and audio tokens in it, their output audio tokens; ours are disjoint
    yield Line(day, model, "input_tokens", counts["input_tokens"] - cached - audio)
    yield Line(day, model, "cached_input_tokens", cached)
    yield Line(day, model, "input_audio_tokens", audio)
    yield Line(day, model, "output_tokens", counts["output_tokens"] - counts["output_audio_tokens"])
    yield Line(day, model, "output_audio_tokens", counts["output_audio_tokens"])


_COUNTED: Final = (
    "input_tokens",
    "input_cached_tokens",
    "input_audio_tokens",
    "output_tokens",
    "output_audio_tokens",
)


def _item(text: str) -> tuple[str, str | None]:
    model, comma, what = text.partition(", ")
    return (model, _UNITS.get(what.strip())) if comma else (text, None)
