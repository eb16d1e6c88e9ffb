"""Prices from litellm's published JSON (``model_prices_and_context_window.json``), a file that the operator brings.

An object of models, each with its provider and numbers such as ``"input_cost_per_token": 2.5e-06``, read as decimals.
What maps: the standard price per token, second, character, image, page, query and request; tiers of long context
(``…_above_200k_tokens``). It has no dates: a price holds since ever. What does not map is said in `notes`: variants
(batch, priority, flex and the like), and models whose prices are all 0, which there may mean free or unknown.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from decimal import Decimal
from typing import Any, Final

from taximeter_db.prices import Price, PriceError, Target, Tier, check
from taximeter_worker.pricing.errors import CatalogueError
from taximeter_worker.pricing.genai_catalogue import Catalogue

CATALOGUE: Final = "litellm"

FIELDS: Final[dict[str, tuple[str, int]]] = {
    "input_cost_per_token": ("input_tokens", 1_000_000),
    "output_cost_per_token": ("output_tokens", 1_000_000),
    "cache_read_input_token_cost": ("cached_input_tokens", 1_000_000),
    "cache_creation_input_token_cost": ("cache_write_tokens", 1_000_000),
    "cache_creation_input_token_cost_above_1hr": ("cache_write_1h_tokens", 1_000_000),
    "input_cost_per_audio_token": ("input_audio_tokens", 1_000_000),
    "cache_read_input_audio_token_cost": ("cached_input_audio_tokens", 1_000_000),
    "input_cost_per_image_token": ("input_image_tokens", 1_000_000),
    "output_cost_per_audio_token": ("output_audio_tokens", 1_000_000),
    "output_cost_per_image_token": ("output_image_tokens", 1_000_000),
    "output_cost_per_reasoning_token": ("output_reasoning_tokens", 1_000_000),
    "output_cost_per_image": ("images", 1),
    "output_cost_per_second": ("seconds", 3600),
    # Where both are given they are the same seconds: the later one here counts.
    "input_cost_per_second": ("seconds", 3600),
    "input_cost_per_character": ("characters", 1_000_000),
    "ocr_cost_per_page": ("pages", 1000),
    "input_cost_per_query": ("searches", 1000),
    "input_cost_per_request": ("requests", 1),
}
"""The file's price fields: our unit, and how many of it the price is written for."""
PROVIDERS: Final = {
    "azure_ai": "azure",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "bedrock_mantle": "aws",
    "cohere_chat": "cohere",
    "fireworks_ai": "fireworks",
    "fireworks_ai-embedding-models": "fireworks",
    "gemini": "google",
    "github_copilot": "github-copilot",
    "moonshot": "moonshotai",
    "together_ai": "together",
    "xai": "x-ai",
    "text-completion-openai": "openai",
    "vertex_ai": "google",
    "voyage": "voyageai",
}
"""Its providers where genai-prices has another name; every ``vertex_ai-…`` is google's too."""

_TIER = re.compile(r"(?P<field>.+)_above_(?P<thousand>[0-9]{1,6})k_tokens", re.ASCII)
_PRICE = re.compile(r"(?:^|_)cost(?:_|$)|pricing", re.ASCII)


def read_catalogue(text: bytes, name: str) -> Catalogue:
    """Read the file's text; `name` says where it came from.

    Raises:
        CatalogueError: It is no such file.
    """
    try:
        content = json.loads(text, parse_float=Decimal, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise CatalogueError(f"{name} is not litellm's JSON of model prices: {error}.") from error
    if not isinstance(content, dict) or not all(isinstance(model, dict) for model in content.values()):
        raise CatalogueError(f"{name} is not litellm's JSON of model prices: an object of models was expected.")
    reader = _Reader(f"{CATALOGUE} {name}"[:256])
    for key, model in content.items():
        if key != "sample_spec":
            reader.read_model(key, model)
    if not reader.prices:
        raise CatalogueError(f"{name} holds no price that this version can read: is it litellm's JSON of model prices?")
    return Catalogue(reader.source, list(reader.prices.values()), {}, reader.notes())


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")


class _Reader:
    """Collects prices, and counts what had to be left out."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.prices: dict[tuple[Target, str], Price] = {}
        self._unknown: Counter[str] = Counter()
        self._nothing: list[str] = []
        self._free: list[str] = []
        self._refused: list[str] = []
        self._twice: list[str] = []

    def read_model(self, key: str, model: dict[str, Any]) -> None:
        theirs = model.get("litellm_provider")
        amounts: dict[str, Decimal] = {}
        tiers: dict[str, dict[int, Decimal]] = {}
        for field, value in model.items():
            if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
                self._unknown[field] += int(_PRICE.search(field) is not None)
            elif field in FIELDS:
                amounts[field] = Decimal(value)
            elif (found := _TIER.fullmatch(field)) is not None and found["field"] in FIELDS:
                tiers.setdefault(found["field"], {})[int(found["thousand"]) * 1000] = Decimal(value)
            elif _PRICE.search(field):
                self._unknown[field] += 1
        if not isinstance(theirs, str) or not amounts:
            self._nothing.append(key)
        elif not any(amounts.values()):
            self._free.append(key)
        else:
            target = Target(None, _provider(theirs), key.removeprefix(f"{theirs}/"))
            for field in (field for field in FIELDS if field in amounts):
                self._add(key, target, field, amounts[field], tiers.get(field, {}))

    def _add(self, key: str, target: Target, field: str, amount: Decimal, tiers: dict[int, Decimal]) -> None:
        unit, per = FIELDS[field]
        price = Price(
            target=target,
            unit=unit,
            amount=_scaled(amount, per),
            per=Decimal(per),
            tiers=tuple(Tier(above, _scaled(tier, per)) for above, tier in sorted(tiers.items())),
            source=self.source,
        )
        try:
            check(price)
        except PriceError:
            self._refused.append(f"{key} {field}")
            return
        known = self.prices.setdefault((target, unit), price)
        if known is not price and unit != "seconds":
            self._twice.append(key)
        elif unit == "seconds":
            self.prices[target, unit] = price

    def notes(self) -> list[str]:
        """One sentence for each kind of thing that was not taken over."""
        variants = Counter({field: number for field, number in self._unknown.items() if number})
        kinds = (
            (
                [f"{field} {number}" for field, number in variants.most_common()],
                "are price fields without a counterpart (variants such as batch or priority: the standard price was taken)",
            ),
            (self._free, "have prices of 0 alone, which may mean free or unknown, and were left out"),
            (self._nothing, "have no price that maps and were left out"),
            (self._twice, "name a model and unit a second time: the first price was taken"),
            (self._refused, "are prices that the book cannot hold"),
        )
        return [
            f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
            for names, what in kinds
            if names
        ]


def _provider(theirs: str) -> str:
    return "google" if theirs.startswith("vertex_ai-") else PROVIDERS.get(theirs, theirs)


def _scaled(amount: Decimal, per: int) -> Decimal:
    """An amount for one as an amount for `per`, without idle zeros; exact, for the file's numbers have 17 digits at most."""
    plain = (amount * per).normalize()
    return plain.quantize(Decimal(1)) if plain == plain.to_integral_value() else plain
