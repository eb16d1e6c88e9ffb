"""What a scenario hands back: its turns as measured, and the figures that are held to the targets."""

from __future__ import annotations

from typing import Any

import msgspec

from benchmarks.stats import Spread, column, ratio

Turns = list[dict[str, Any]]


class Result(msgspec.Struct):
    """Sides by name with a dict of measurements a turn; figures by the names of `benchmarks.targets`; remarks for people."""

    sides: dict[str, Turns] = msgspec.field(default_factory=dict)
    figures: dict[str, Spread] = msgspec.field(default_factory=dict)
    notes: list[str] = msgspec.field(default_factory=list)
    more: dict[str, Any] = msgspec.field(default_factory=dict)

    def compare(self, figure: str, above: str, below: str, name: str = "events_per_second") -> None:
        """Set a figure to the ratio of two sides, taken turn by turn."""
        self.figures[figure] = ratio(column(self.sides[above], name), column(self.sides[below], name))

    def take(self, figure: str, side: str, name: str) -> None:
        """Set a figure to what a side measured."""
        self.figures[figure] = Spread.of(column(self.sides[side], name))
