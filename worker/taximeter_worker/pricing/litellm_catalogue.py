"""Prices from litellm's published JSON (``model_prices_and_context_window.json``), a file that the operator brings.

An object of models, each with its provider and numbers such as ``"input_cost_per_token": 2.5e-06``, read as decimals.
What maps: the standard price per token, second, character, image, page, query and request; tiers of long context
(``…_above_200k_tokens``). It has no dates: a price holds for all time. `notes` say what does not map: variants (batch,
priority, flex and the like), models whose prices are all 0, which there may mean free or unknown, and a price of 0 for
a sub-pool of a model that is not free, which there means that nobody filled it in: the parent's price counts.

Names. A key is a model's name, often behind its provider's (``vertex_ai/claude-…``); events bear either. Providers that
genai-prices knows by one name are folded into that name. Where folded models differ in price, each keeps the price under
the provider that litellm reports for it, the folded name has a price only where a provider bears it by itself, and
`notes` list the difference.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from decimal import Decimal
from typing import Any, Final, NamedTuple

import msgspec

from taximeter.names import PARENT_UNITS
from taximeter_db.prices.store import Price, PriceError, Target, Tier, check, same_value
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
    "output_cost_per_reasoning_token": ("reasoning_tokens", 1_000_000),
    "output_cost_per_image": ("images", 1),
    "output_cost_per_second": ("seconds", 3600),
    # Where both are given they are the same seconds: one of them is 0, or they agree, or neither is taken.
    "input_cost_per_second": ("seconds", 3600),
    "input_cost_per_character": ("characters", 1_000_000),
    "ocr_cost_per_page": ("pages", 1000),
    "input_cost_per_query": ("searches", 1000),
    "input_cost_per_request": ("requests", 1),
}
"""The file's price fields: our unit, and how many of it the price is written for."""
NOT_PRICED: Final[frozenset[str]] = frozenset()
"""Standard units that the file has no field for."""
SECONDS: Final = tuple(field for field, (unit, _) in FIELDS.items() if unit == "seconds")
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
"""Its providers where genai-prices has another name; every ``vertex_ai-…`` is vertex_ai."""

SAME_SELLER: Final = frozenset({"bedrock", "bedrock_converse"})
"""Providers that are two ways to one seller: where another one differs, theirs is the price of the common name."""

_TIER = re.compile(r"(?P<field>.+)_above_(?P<thousand>[0-9]{1,6})k_tokens", re.ASCII)
_PRICE = re.compile(r"(?:^|_)cost(?:_|$)|pricing", re.ASCII)


def read_catalogue(text: bytes, name: str) -> Catalogue:
    """Read the file's text; `name` says where it came from.

    Raises:
        CatalogueError: It is not such a file.
    """
    try:
        content = json.loads(text, parse_float=Decimal, parse_constant=_reject)
    except (ValueError, RecursionError) as error:
        raise CatalogueError(f"{name} is not litellm's JSON of model prices: {error}.") from error
    if not isinstance(content, dict) or not all(isinstance(model, dict) for model in content.values()):
        raise CatalogueError(f"{name} is not litellm's JSON of model prices: an object of models was expected.")
    reader = _Reader(f"{CATALOGUE} {name}"[:256])
    for key, model in content.items():
        if key != "sample_spec":
            reader.read_model(key, model)
    prices, aliases = reader.fold()
    if not prices:
        raise CatalogueError(f"{name} holds no price that this version can read: is it litellm's JSON of model prices?")
    return Catalogue(reader.source, prices, aliases, reader.notes())


def _reject(constant: str) -> Any:
    raise ValueError(f"{constant} is not a number")


class _Model(NamedTuple):
    """One model of the file: its key, litellm's provider, its name without the provider, and its prices by unit."""

    key: str
    provider: str
    name: str
    prices: dict[str, Price]


class _Reader:
    """Collects models, and counts what had to be left out."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._models: list[_Model] = []
        self._unknown: Counter[str] = Counter()
        self._nothing: list[str] = []
        self._free: list[str] = []
        self._rejected: list[str] = []
        self._seconds: list[str] = []
        self._zeros: list[str] = []
        self._differing: list[str] = []

    def read_model(self, key: str, model: dict[str, Any]) -> None:
        theirs = model.get("litellm_provider")
        amounts, tiers = self._numbers(model)
        if not isinstance(theirs, str) or not amounts:
            self._nothing.append(key)
        elif not any(amounts.values()):
            self._free.append(key)
        else:
            family = "vertex_ai" if theirs.startswith("vertex_ai-") else theirs
            prefix = next((prefix for prefix in (f"{theirs}/", f"{family}/") if key.startswith(prefix)), "")
            name = key.removeprefix(prefix)
            prices = self._prices(key, Target(None, family, name), amounts, tiers)
            self._models.append(_Model(key, family, name, prices))

    def _numbers(self, model: dict[str, Any]) -> tuple[dict[str, Decimal], dict[str, dict[int, Decimal]]]:
        """A model's prices by field, and their tiers by field and threshold."""
        amounts: dict[str, Decimal] = {}
        tiers: dict[str, dict[int, Decimal]] = {}
        for field, value in model.items():
            if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
                self._unknown[field] += int(_PRICE.search(field) is not None)
            elif field in FIELDS:
                amounts[field] = Decimal(value)
            elif (tier := _TIER.fullmatch(field)) is not None and tier["field"] in FIELDS:
                tiers.setdefault(tier["field"], {})[int(tier["thousand"]) * 1000] = Decimal(value)
            elif _PRICE.search(field):
                self._unknown[field] += 1
        return amounts, tiers

    def _prices(
        self, key: str, target: Target, amounts: dict[str, Decimal], tiers: dict[str, dict[int, Decimal]]
    ) -> dict[str, Price]:
        prices: dict[str, Price] = {}
        for field in self._believed(key, amounts):
            unit, per = FIELDS[field]
            amount = amounts[field]
            steps = sorted((above, tier) for above, tier in tiers.get(field, {}).items() if tier or not amount)
            price = Price(
                target=target,
                unit=unit,
                amount=_scaled(amount, per),
                per=Decimal(per),
                tiers=tuple(Tier(above, _scaled(tier, per)) for above, tier in steps),
                source=self.source,
            )
            try:
                prices[unit] = check(price)
            except PriceError:
                self._rejected.append(f"{key} {field}")
        return prices

    def _believed(self, key: str, amounts: dict[str, Decimal]) -> list[str]:
        """The fields that are prices: no zero that only says that nobody knows, and one price for seconds."""
        seconds = {amounts[field] for field in SECONDS if amounts.get(field)}
        if len(seconds) > 1:
            self._seconds.append(key)
        fields = []
        for field in (field for field in FIELDS if field in amounts):
            if field in SECONDS:
                if len(seconds) > 1 or (seconds and not amounts[field]):
                    continue
            elif not amounts[field] and FIELDS[field][0] in PARENT_UNITS:
                self._zeros.append(f"{key} {field}")
                continue
            fields.append(field)
        return fields

    def fold(self) -> tuple[list[Price], dict[str, Any]]:
        """All prices under the names that events bear, and the aliases for their other names."""
        groups: dict[tuple[str, str], list[_Model]] = {}
        for model in self._models:
            groups.setdefault((PROVIDERS.get(model.provider, model.provider), model.name), []).append(model)
        prices: dict[tuple[Target, str], Price] = {}
        own_names: dict[str, str] = {}
        for (provider, name), models in groups.items():
            differs = _differ(models)
            if differs:
                self._differing.append(f"{provider} {name}: {' and '.join(model.key for model in models)}")
            for model in models:
                own = differs and model.provider not in {provider, *SAME_SELLER}
                if own:
                    own_names[model.provider] = provider
                target = Target(None, model.provider if own else provider, name)
                for unit, price in model.prices.items():
                    prices.setdefault((target, unit), msgspec.structs.replace(price, target=target))
        return list(prices.values()), _aliases(self._models, own_names)

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
            (
                self._zeros,
                "are prices of 0 for a part of the tokens of a model that is not free: the whole's price was taken",
            ),
            (self._seconds, "have two different prices for seconds, and neither was taken"),
            (self._differing, "differ in price under one name: each was taken under its own provider"),
            (self._rejected, "are prices that the book cannot hold"),
        )
        return [
            f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
            for names, what in kinds
            if names
        ]


def _differ(models: list[_Model]) -> bool:
    """Whether two of the models that share a name have different prices for a unit."""
    first: dict[str, Price] = {}
    return any(
        not same_value(price, first.setdefault(unit, price)) for model in models for unit, price in model.prices.items()
    )


def _aliases(models: list[_Model], own_names: dict[str, str]) -> dict[str, Any]:
    """Rules from the providers and keys that litellm reports to the names of the prices."""
    rules: dict[str, list[list[str]]] = {}
    for model in models:
        if model.key != model.name:
            rules.setdefault(PROVIDERS.get(model.provider, model.provider), []).append(
                ["equals", model.key.lower(), model.name]
            )
            if model.provider in own_names:
                rules.setdefault(model.provider, []).append(["equals", model.key.lower(), model.name])
    used = {model.provider: PROVIDERS[model.provider] for model in models if model.provider in PROVIDERS}
    return {
        "providers": [["equals", theirs, ours] for theirs, ours in used.items() if theirs not in own_names],
        "models": rules,
        "fallbacks": {theirs: [ours] for theirs, ours in own_names.items()},
    }


def _scaled(amount: Decimal, per: int) -> Decimal:
    """An amount for one as an amount for `per`, without idle zeros; exact, for the file's numbers have 17 digits at most."""
    plain = (amount * per).normalize()
    return plain.quantize(Decimal(1)) if plain == plain.to_integral_value() else plain
