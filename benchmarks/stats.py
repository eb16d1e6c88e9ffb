"""The little statistics that a few repeats allow: medians, their spread, and ratios taken turn by turn."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec


class Spread(msgspec.Struct, frozen=True):
    """The median of some repeats, the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of at least one value."""
        values = list(values)
        return cls(statistics.median(values), min(values), max(values))


def ratio(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Of two sides that were measured in turns: the machine's slow minutes hit both sides of a turn alike."""
    return Spread.of(a / b for a, b in zip(above, below, strict=True))


def percentile(values: Iterable[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest value that at least `percent` percent of the values do not exceed."""
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


def column(turns: Iterable[dict[str, Any]], name: str) -> list[float]:
    """One measurement of every turn."""
    return [turn[name] for turn in turns]


def in_turns(turns: int, sides: dict[str, Callable[[int], dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Measure all sides once in every turn, back and forth, so that no side is always the first.

    Args:
        turns: How often.
        sides: By name, what measures a side; called with the number of the turn.
    """
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for turn in range(turns):
        order = list(sides) if turn % 2 == 0 else list(reversed(sides))
        for name in order:
            print(f"  {turn + 1}/{turns} {name} …", end=" ", flush=True)
            results[name].append(sides[name](turn))
            shown = results[name][-1].get("events_per_second")
            print(f"{shown:,.0f} events/s" if shown else "done", flush=True)
    return results
