"""Prices from the installed genai-prices package, offline: its data only, never its updater or its arithmetic.

What maps: prices per unit with their long-context tiers or hours of the day (UTC); start dates (UTC midnight) as
`effective_from`; the first price of a model as holding for all time before; names and their rules as aliases. What does
not map, and is named in `notes`:

- variants such as batch processing: the standard price is taken;
- models that the catalogue lists without any price are left out, not made free;
- rules that are regular expressions, except that a date at the end of a name is understood anyway.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from importlib.metadata import version
from itertools import pairwise
from typing import Any, Final

import msgspec

from taximeter.names import PARENT_UNITS
from taximeter_db.prices.store import Price, PriceError, Target, Tier, Window, check
from taximeter_db.prices.terms import DAY_SECONDS
from taximeter_worker.pricing.errors import CatalogueError

CATALOGUE: Final = "genai-prices"

UNITS: Final[dict[str, tuple[str, int]]] = {
    "input_mtok": ("input_tokens", 1_000_000),
    "output_mtok": ("output_tokens", 1_000_000),
    "cache_read_mtok": ("cached_input_tokens", 1_000_000),
    "cache_write_mtok": ("cache_write_tokens", 1_000_000),
    "cache_write_1h_mtok": ("cache_write_1h_tokens", 1_000_000),
    "input_audio_mtok": ("input_audio_tokens", 1_000_000),
    "cache_audio_read_mtok": ("cached_input_audio_tokens", 1_000_000),
    "input_image_mtok": ("input_image_tokens", 1_000_000),
    "output_audio_mtok": ("output_audio_tokens", 1_000_000),
    "output_image_mtok": ("output_image_tokens", 1_000_000),
    "output_reasoning_mtok": ("reasoning_tokens", 1_000_000),
    "requests_kcount": ("requests", 1000),
    "audio_hours": ("seconds", 3600),
    "input_mchars": ("characters", 1_000_000),
    "input_document_kpages": ("pages", 1000),
    "web_searches_kcount": ("searches", 1000),
    # Not standard units: a tool that reports them apart, disjoint from the others, is charged their own price.
    "cache_image_read_mtok": ("cached_input_image_tokens", 1_000_000),
    "input_video_mtok": ("input_video_tokens", 1_000_000),
    "output_video_mtok": ("output_video_tokens", 1_000_000),
    "output_citation_mtok": ("output_citation_tokens", 1_000_000),
    "input_annotated_document_kpages": ("annotated_pages", 1000),
    "input_text_messages_kcount": ("input_text_messages", 1000),
    "storage_searches_kcount": ("storage_searches", 1000),
}
"""The catalogue's price fields: our unit, and how many of it the price is for."""
NOT_PRICED: Final = frozenset({"images"})
"""Standard units that the catalogue has no field for."""
SAME_AS: Final = {"input_audio_hours": "audio_hours"}
"""Fields that repeat another one's price."""

_Fields = dict[str, tuple[Decimal, int, tuple[Tier, ...], tuple[Window, ...]]]
_Stages = list[tuple[dt.datetime | None, _Fields]]


class Catalogue(msgspec.Struct, frozen=True):
    """What a catalogue holds, in the book's terms. `notes` are sentences about what was not taken over."""

    source: str
    prices: list[Price]
    aliases: dict[str, Any]
    notes: list[str]


def read_catalogue() -> Catalogue:
    """Read the installed package's data.

    Raises:
        CatalogueError: It is not installed, or its data has a shape that this version does not know.
    """
    try:
        from genai_prices.data import providers

        source = f"{CATALOGUE} {version(CATALOGUE)}"
    except ImportError as error:
        raise CatalogueError('The price catalogue is not installed: pip install "taximeter[worker]".') from error
    reader = _Reader(source)
    try:
        for provider in providers:
            for model in provider.models:
                reader.read_model(provider.id, model)
        aliases = _aliases(providers)
    except (AttributeError, TypeError, PriceError) as error:
        raise CatalogueError(f"{source} holds data that this version cannot read: {error}") from error
    return Catalogue(source, reader.prices, aliases, reader.notes())


class _Reader:
    """Collects prices, and what had to be left out."""

    def __init__(self, source: str) -> None:
        self._source = source
        self.prices: list[Price] = []
        self._unpriced: list[str] = []
        self._hourly: list[str] = []
        self._variants: list[str] = []
        self._unknown: set[str] = set()

    def read_model(self, provider: str, model: Any) -> None:
        name = f"{provider} {model.id}"
        conditional = model.prices if isinstance(model.prices, list) else None
        if model.price_variants:
            self._variants.append(name)
        if conditional is None:
            stages: _Stages = [(None, self._fields(model.prices))]
        else:
            stages = self._stages(name, conditional)
        if not any(fields for _, fields in stages):
            self._unpriced.append(name)
        for price in self._timeline(Target(None, provider, model.id), stages):
            self.prices.append(check(price))

    def _fields(self, prices: Any) -> _Fields:
        """Unit → amount, per, tiers of one stage."""
        fields: _Fields = {}
        values = {key: value for key, value in vars(prices).items() if value is not None and not key.startswith("_")}
        for key, value in values.items():
            name = SAME_AS.get(key, key)
            if name != key and name in values:
                continue
            if name not in UNITS:
                self._unknown.add(key)
                continue
            unit, per = UNITS[name]
            if isinstance(value, Decimal):
                fields[unit] = (value, per, (), ())
            else:
                fields[unit] = (value.base, per, tuple(Tier(tier.start, tier.price) for tier in value.tiers), ())
        return fields

    def _stages(self, name: str, conditional: list[Any]) -> _Stages:
        """The prices by date: at any time the last stage that has begun counts, and the first before all others.

        In the named hours of every day the price of those hours counts, where it stands after the date's in the list.
        """
        hourly = [stage for stage in conditional if hasattr(stage.constraint, "start_time")]
        dated = [stage for stage in conditional if not hasattr(stage.constraint, "start_time")] or conditional[:1]
        starts = {stage.constraint.start_date for stage in dated[1:] if stage.constraint is not None}
        stages: _Stages = []
        for start in (None, *sorted(starts)):
            active = dated[0]
            for stage in dated[1:]:
                began = stage.constraint is None or (start is not None and stage.constraint.start_date <= start)
                active = stage if began else active
            moment = None if start is None else dt.datetime.combine(start, dt.time(), dt.UTC)
            after = conditional.index(active)
            hours = [stage for stage in hourly if conditional.index(stage) > after]
            stages.append((moment, self._with_hours(name, self._fields(active.prices), hours)))
        return stages

    def _with_hours(self, name: str, fields: _Fields, hourly: list[Any]) -> _Fields:
        windows: dict[str, list[Window]] = {}
        for stage in hourly:
            start, end = (
                (moment.hour * 60 + moment.minute) * 60 + moment.second
                for moment in (stage.constraint.start_time, stage.constraint.end_time)
            )
            spans = [(start, end)] if start < end else [(start, DAY_SECONDS), (0, end)]
            for unit, (amount, _, tiers, _) in self._fields(stage.prices).items():
                if tiers or unit not in fields or fields[unit][2]:
                    self._hourly.append(name)
                    continue
                windows.setdefault(unit, []).extend(Window(*span, amount) for span in spans if span[0] < span[1])
        mapped = dict(fields)
        for unit, hours in windows.items():
            amount, per, tiers, _ = fields[unit]
            hours.sort(key=lambda window: window.start)
            if any(earlier.end > later.start for earlier, later in pairwise(hours)):
                self._hourly.append(name)
            else:
                mapped[unit] = (amount, per, tiers, tuple(hours))
        return mapped

    def _timeline(self, target: Target, stages: _Stages) -> Iterator[Price]:
        held: _Fields = {}
        for start, fields in stages:
            current = dict(fields)
            for unit in held.keys() - fields.keys():
                # The sub-pool's own price ended: from here on it costs what its parent costs.
                parent = PARENT_UNITS.get(unit)
                while parent is not None and parent not in fields:
                    parent = PARENT_UNITS.get(parent)
                if parent is not None:
                    current[unit] = fields[parent]
            for unit, value in current.items():
                if held.get(unit) != value:
                    amount, per, tiers, daily = value
                    yield Price(
                        target=target,
                        unit=unit,
                        amount=amount,
                        per=Decimal(per),
                        tiers=tiers,
                        daily=daily,
                        effective_from=start,
                        source=self._source,
                    )
            held.update(current)

    def notes(self) -> list[str]:
        """One sentence for each kind of thing that was not taken over."""
        kinds = (
            (
                self._hourly,
                "have prices by time of day of a kind that this version does not know: the price outside those hours was taken",
            ),
            (self._variants, "have variants such as batch processing: the standard price was taken"),
            (self._unpriced, "have no price in the catalogue and were left out; a free model needs a price of 0"),
            (sorted(self._unknown), "are price fields that this version does not know"),
        )
        return [
            f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
            for names, what in kinds
            if names
        ]


def _aliases(providers: list[Any]) -> dict[str, Any]:
    models = {
        provider.id: [
            [kind, pattern, model.id]
            for model in provider.models
            for kind, pattern in _patterns(model.match)
            if (kind, pattern) != ("equals", model.id.lower())
        ]
        for provider in providers
    }
    return {
        "providers": [
            [kind, pattern, provider.id]
            for provider in providers
            for kind, pattern in _patterns(provider.provider_match)
        ],
        "models": {provider: rules for provider, rules in models.items() if rules},
        "fallbacks": {
            provider.id: provider.fallback_model_providers
            for provider in providers
            if provider.fallback_model_providers
        },
    }


def _patterns(clause: Any) -> Iterator[tuple[str, str]]:
    """The simple rules in a match clause, in order; alternatives are walked, anything cleverer is left out."""
    if clause is None:
        return
    for alternative in getattr(clause, "or_", ()):
        yield from _patterns(alternative)
    for kind in ("equals", "starts_with", "ends_with", "contains"):
        pattern = getattr(clause, kind, None)
        if pattern:
            yield kind, pattern.lower()
