"""The price file: what `prices export` writes, one price a line, made to be read in a pull request.

    {"format": "taximeter-prices/1",
     "prices": [
      {"provider": "openai", "model": "gpt-4o", "unit": "input_tokens", "amount": "2.5", "per": "1000000",
       "tiers": [], "effective_from": null, "source": "genai-prices 0.2.3"},
      …],
     "aliases": {"genai-prices": {…}}}

Numbers are decimal strings, so that no reader turns them into floats. Importing the file into an empty book and
exporting that gives the same bytes.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from taximeter.pricing.model_names import MATCHES
from taximeter_db.prices.store import Price, PriceError, Target, Tier, Window, check, parse_decimal, plain, utc_text
from taximeter_worker.pricing.errors import BookFileError

FORMAT: Final = "taximeter-prices/1"


class _TierLine(msgspec.Struct, forbid_unknown_fields=True):
    above: int
    amount: str


class _WindowLine(msgspec.Struct, forbid_unknown_fields=True):
    start: int
    end: int
    amount: str


class _PriceLine(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    unit: str
    amount: str
    tool: str | None = None
    provider: str | None = None
    model: str | None = None
    per: str = "1"
    tiers: list[_TierLine] = []
    effective_from: str | None = None
    source: str = "file"
    workspace: str | None = None
    charge: str = "flat"
    daily: list[_WindowLine] = []
    effective_until: str | None = None
    fallback: tuple[str, str] | None = None


class _AliasRules(msgspec.Struct, forbid_unknown_fields=True):
    providers: list[tuple[str, str, str]] = []
    models: dict[str, list[tuple[str, str, str]]] = {}
    fallbacks: dict[str, list[str]] = {}


class _BookFile(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    prices: list[_PriceLine]
    aliases: dict[str, _AliasRules] = {}


def price_object(price: Price) -> dict[str, Any]:
    """A price as the file and ``--json`` show it."""
    target = {name: value for name, value in price.target._asdict().items() if value is not None}
    beyond: dict[str, Any] = {}
    if price.charge != "flat":
        beyond["charge"] = price.charge
    if price.daily:
        beyond["daily"] = [{"start": w.start, "end": w.end, "amount": plain(w.amount)} for w in price.daily]
    if price.effective_until is not None:
        beyond["effective_until"] = utc_text(price.effective_until)
    if price.fallback is not None:
        beyond["fallback"] = list(price.fallback)
    return {
        **target,
        "unit": price.unit,
        "amount": plain(price.amount),
        "per": plain(price.per),
        "tiers": [{"above": tier.above, "amount": plain(tier.amount)} for tier in price.tiers],
        "effective_from": None if price.effective_from is None else utc_text(price.effective_from),
        **beyond,
        "source": price.source,
    }


def write_book(prices: Iterable[Price], aliases: Mapping[str, Mapping[str, Any]]) -> str:
    """The file's text; `prices` in the order in which they shall stand."""
    lines = ",\n".join("  " + json.dumps(price_object(price), ensure_ascii=False) for price in prices)
    catalogues = ",\n".join(f"  {json.dumps(name)}: {_alias_text(rules)}" for name, rules in sorted(aliases.items()))
    return f'{{"format": "{FORMAT}",\n "prices": [\n{lines}\n ],\n "aliases": {{\n{catalogues}\n }}}}\n'


def _alias_text(rules: Mapping[str, Any]) -> str:
    models = ",\n".join(
        f"    {json.dumps(provider, ensure_ascii=False)}: [\n"
        + ",\n".join(f"     {json.dumps(rule, ensure_ascii=False)}" for rule in model_rules)
        + "\n    ]"
        for provider, model_rules in sorted(rules["models"].items())
    )
    providers = ",\n".join(f"    {json.dumps(rule, ensure_ascii=False)}" for rule in rules["providers"])
    fallbacks = json.dumps(dict(sorted(rules["fallbacks"].items())), ensure_ascii=False)
    return (
        f'{{\n   "providers": [\n{providers}\n   ],\n   "models": {{\n{models}\n   }},\n   "fallbacks": {fallbacks}}}'
    )


def read_book(text: bytes) -> tuple[list[Price], dict[str, Any]]:
    """Read a price file: its prices and alias rules.

    Raises:
        BookFileError: It is not such a file, or one of its prices cannot be accepted; says which line of the list.
    """
    try:
        content = msgspec.json.decode(text, type=_BookFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BookFileError(f"This is not a price file of `prices export`: {error}.") from error
    if content.format != FORMAT:
        raise BookFileError(f'The file\'s format is "{content.format[:40]}"; this version reads "{FORMAT}".')
    prices = []
    for number, line in enumerate(content.prices, 1):
        try:
            prices.append(check(_price(line)))
        except PriceError as error:
            raise BookFileError(f"Price {number} of the file ({line.unit[:40]}): {error}") from error
    for name, rules in content.aliases.items():
        used = [rule for model_rules in rules.models.values() for rule in model_rules] + rules.providers
        unknown = next((rule for rule in used if rule[0] not in MATCHES), None)
        if unknown is not None:
            raise BookFileError(f"Alias rule {unknown} of {name!r}: a rule is one of {', '.join(MATCHES)}.")
    # By way of JSON, so that rules are lists again, as the database returns them.
    return prices, {name: msgspec.json.decode(msgspec.json.encode(rules)) for name, rules in content.aliases.items()}


def _price(line: _PriceLine) -> Price:
    start = None if line.effective_from is None else parse_time(line.effective_from)
    return Price(
        target=Target(line.tool, line.provider, line.model, line.workspace),
        unit=line.unit,
        amount=parse_decimal(line.amount, "amount"),
        per=parse_decimal(line.per, "per"),
        tiers=tuple(Tier(tier.above, parse_decimal(tier.amount, "tier amount")) for tier in line.tiers),
        effective_from=start,
        effective_until=None if line.effective_until is None else parse_time(line.effective_until),
        charge=line.charge,
        daily=tuple(Window(window.start, window.end, parse_decimal(window.amount, "amount")) for window in line.daily),
        fallback=line.fallback,
        source=line.source,
    )


def parse_time(text: str) -> dt.datetime:
    """Read an RFC 3339 time with an offset, or a date (midnight UTC).

    Raises:
        PriceError: It is none, has no offset, or lies outside the years 1 to 9999.
    """
    try:
        if len(text) == len("2026-01-31"):
            return dt.datetime.combine(dt.date.fromisoformat(text), dt.time(), dt.UTC)
        moment = dt.datetime.fromisoformat(text)
        moment = moment if moment.tzinfo is None else moment.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise PriceError(f"{text[:40]!r} is not a time. Write 2026-12-01 or 2026-12-01T00:00:00Z.") from None
    if moment.tzinfo is None:
        raise PriceError(f"{text[:40]!r} has no time zone. Add Z for UTC or an offset such as +02:00.")
    return moment
