"""Errors of pricing.

PricingError
├── PriceMissing     nothing in the book prices a unit of the event at its time
├── OutOfRange       the cost is beyond what the ledger can hold
├── CatalogueError   a catalogue is not installed, or is not what it should be
└── BookFileError    a price file cannot be read
"""

from __future__ import annotations

import shlex
from typing import Final

from taximeter_worker.errors import TaximeterWorkerError


class PricingError(TaximeterWorkerError):
    """Root of every error that this package raises itself."""


_PER: Final = {"tokens": "1000000", "seconds": "3600"}


class PriceMissing(PricingError):  # noqa: N818 - named after the reason code price_missing
    """Nothing in the book prices a unit of the event at its time; its sentence says which command would mend that."""

    reason: Final = "price_missing"

    def __init__(
        self, *, unit: str, tool: str, provider: str | None, model: str | None, time: str, later: str | None
    ) -> None:
        self.unit = unit
        self.tool = tool
        self.provider = provider
        self.model = model
        self.time = time
        super().__init__(self._sentence(later))

    def _sentence(self, later: str | None) -> str:
        if self.provider is not None and self.model is not None:
            what = f"{self.provider} {self.model} or tool {self.tool}"
            target = f"--provider {shlex.quote(self.provider)} --model {shlex.quote(self.model)}"
        else:
            what = f"tool {self.tool}"
            target = f"--tool {shlex.quote(self.tool)}"
        per = _PER.get(self.unit.rpartition("_")[2], "1")
        hint = f"taximeter prices set {target} --unit {shlex.quote(self.unit)} --price AMOUNT --per {per}"
        if later is not None:
            return (
                f"{self.unit} of {what} has a price only from {later}, after the event's time {self.time}. "
                f"Price the time before: {hint} --from {self.time}"
            )
        sentence = f"No price for {self.unit} of {what} at {self.time}. Set one: {hint}"
        if (self.provider is None) != (self.model is None):
            sentence += " (the event names only one of provider and model; a model's price needs both)"
        return sentence


class OutOfRange(PricingError):  # noqa: N818 - named after the reason code out_of_range
    """The cost is 10¹⁵ USD or more: beyond what the ledger can hold."""

    reason: Final = "out_of_range"


class CatalogueError(PricingError):
    """A price catalogue is not installed, or is not what it should be."""


class BookFileError(PricingError, ValueError):
    """A price file cannot be read; nothing was imported."""
