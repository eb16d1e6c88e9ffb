"""Which price counts: the book's entries by target and unit, as timelines, and the names they are found by."""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

from taximeter.errors import PriceMissingError
from taximeter.names import PARENT_UNITS, STANDARD_UNITS
from taximeter.near_units import near_unit
from taximeter.pricing.charging import Priced
from taximeter.pricing.model_names import ModelNames
from taximeter.pricing.terms import RULE_UNITS, PriceEntry, Target, TargetKey

Quantities = Mapping[str, int | Decimal]
EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
EVER: Final = -(2**63)
Timeline = tuple[tuple[int, PriceEntry | None], ...]
"""Start and version; None where nothing holds any more."""


def _chain(unit: str) -> tuple[str, ...]:
    """A unit and the ancestors whose price it may take."""
    units = [unit]
    while (parent := PARENT_UNITS.get(units[-1])) is not None:
        units.append(parent)
    return tuple(units)


CHAINS: Final = {unit: _chain(unit) for unit in PARENT_UNITS}
_INPUT_POOLS: Final = frozenset(unit for unit in STANDARD_UNITS if CHAINS.get(unit, (unit,))[-1] == "input_tokens")
"""The disjoint pools whose sum decides on the long-context tier."""


def microseconds(moment: dt.datetime) -> int:
    """An aware time as microseconds since the Unix epoch."""
    return (moment - EPOCH) // dt.timedelta(microseconds=1)


def input_tokens(quantities: Quantities) -> int | Decimal:
    """All input tokens of an event, cached, audio and image ones included."""
    total: int | Decimal = 0
    for unit, quantity in quantities.items():
        if unit in _INPUT_POOLS:
            total += quantity
    return total


def time_text(at_us: int) -> str:
    """Microseconds since the epoch as RFC 3339 in UTC."""
    return (EPOCH + dt.timedelta(microseconds=at_us)).isoformat().replace("+00:00", "Z")


class PriceTerms(NamedTuple):
    """What of a usage decides on its price.

    `quantities` are by unit, non-negative int or Decimal; `occurred_at_us` is the event's own time in microseconds since
    the Unix epoch; `workspace` is whose usage it is, for a multiplier of its own.
    """

    tool: str
    provider: str | None
    model: str | None
    quantities: Quantities
    occurred_at_us: int
    workspace: str | None = None


class PriceIndex:
    """Entries, found by the rule of docs/prices.md. Immutable."""

    def __init__(self, entries: Iterable[PriceEntry], aliases: Mapping[str, Mapping[str, Any]]) -> None:
        self._entries: dict[TargetKey, dict[str, Timeline]] = {}
        by_start: dict[TargetKey, dict[str, dict[int, PriceEntry]]] = {}
        for entry in sorted(entries, key=lambda entry: entry.revision):
            start = EVER if entry.effective_from is None else microseconds(entry.effective_from)
            # Of two versions from the same moment, the later revision counts.
            by_start.setdefault(entry.target, {}).setdefault(entry.unit, {})[start] = entry
        for target, units in by_start.items():
            self._entries[target] = {unit: _timeline(starts) for unit, starts in units.items()}
        self.aliases: Final = aliases
        self._names = ModelNames(
            (
                (provider, model)
                for _, provider, model, _ in self._entries
                if provider is not None and model is not None
            ),
            aliases,
        )

    def find(self, targets: Sequence[TargetKey], unit: str, at_us: int) -> Priced | None:
        """The entry that prices `unit` at a time, by the rule at the top of ``price_book``."""
        for target in targets:
            units = self._entries[target]
            for name in CHAINS.get(unit, (unit,)):
                entry = in_force(units.get(name, ()), at_us)
                if entry is not None and name not in RULE_UNITS:
                    return Priced(entry, name)
        return None

    def targets(self, tool: str, provider: str | None, model: str | None) -> tuple[TargetKey, ...]:
        """The targets in the book that apply to an event, most specific first."""
        names = self._names.resolve(provider, model) if provider is not None and model is not None else ()
        wanted = [
            *(Target(tool, *name) for name in names),
            Target(tool, None, None),
            *(Target(None, *name) for name in names),
        ]
        return tuple(target for target in wanted if target in self._entries)

    def entries(self) -> list[PriceEntry]:
        """Every version that counts, ordered by target, unit and start."""

        def order(target: TargetKey) -> tuple[str, ...]:
            return tuple(name or "" for name in target)

        return [
            entry
            for target in sorted(self._entries, key=order)
            for unit in sorted(self._entries[target])
            for _, entry in self._entries[target][unit]
            if entry is not None
        ]

    def rule(self, targets: Iterable[TargetKey], unit: str, at_us: int) -> PriceEntry | None:
        """The rule for whole events that counts: the most specific target's."""
        for target in targets:
            entry = in_force(self._entries.get(target, {}).get(unit, ()), at_us)
            if entry is not None:
                return entry
        return None

    def all_targets(self) -> Mapping[TargetKey, object]:
        """Whatever has a price or a rule."""
        return self._entries

    def units(self, target: TargetKey) -> Iterable[str]:
        """What `target` has prices for, at any time."""
        return self._entries.get(target, {})

    def model_targets(self, provider: str, model: str) -> tuple[TargetKey, ...]:
        """The targets that price a model, whatever the tool."""
        wanted = (Target(None, *name) for name in self._names.resolve(provider, model))
        return tuple(target for target in wanted if target in self._entries)

    def missing(self, targets: Sequence[TargetKey], unit: str, terms: PriceTerms) -> PriceMissingError:
        """The error that says which unit of an event has no price, and what to do."""
        starts = [
            start
            for target in targets
            for name in CHAINS.get(unit, (unit,))
            for start, entry in self._entries[target].get(name, ())
            if entry is not None and start > terms.occurred_at_us
        ]
        return PriceMissingError(
            unit=unit,
            tool=terms.tool,
            provider=terms.provider,
            model=terms.model,
            time=time_text(terms.occurred_at_us),
            later=time_text(min(starts)) if starts else None,
            meant=None if unit in STANDARD_UNITS else near_unit(unit, self._priced_at(targets, terms.occurred_at_us)),
        )

    def _priced_at(self, targets: Sequence[TargetKey], at_us: int) -> set[str]:
        """The units that any of the targets has a price for at that time."""
        return {
            unit
            for target in targets
            for unit, timeline in self._entries[target].items()
            if unit not in RULE_UNITS and in_force(timeline, at_us) is not None
        }


def _timeline(starts: Mapping[int, PriceEntry]) -> Timeline:
    """Versions by their start, with None where one ends before the next begins."""
    ordered = sorted(starts.items())
    timeline: list[tuple[int, PriceEntry | None]] = []
    for index, (start, entry) in enumerate(ordered):
        timeline.append((start, entry))
        if entry.effective_until is not None:
            end = microseconds(entry.effective_until)
            if index + 1 == len(ordered) or end < ordered[index + 1][0]:
                timeline.append((end, None))
    return tuple(timeline)


def workspace_targets(tool: str | None, workspace: str | None) -> tuple[TargetKey, ...]:
    """Where a workspace's multiplier may stand, most specific first."""
    return (Target(tool, None, None, workspace), Target(None, None, None, workspace))


def in_force(versions: Timeline, at_us: int) -> PriceEntry | None:
    """The version that holds at a time."""
    index = bisect_right(versions, at_us, key=lambda version: version[0])
    return versions[index - 1][1] if index else None
