"""What the providers' responses cost by the catalogue, against genai-prices' own arithmetic and exact fractions."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from taximeter import quantities
from taximeter.pricing.price_book import PriceBook
from taximeter.pricing.price_index import PriceTerms, microseconds
from taximeter_db.money import format_usd
from taximeter_worker.pricing.compare import book_of
from taximeter_worker.pricing.genai_catalogue import CATALOGUE, read_catalogue
from taximeter_worker.pricing.receipt import explain

FOLDER = Path(__file__).parents[1] / "data" / "adapters"
FIXTURES = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
PRICED = [name for name, fixture in FIXTURES.items() if "cost" in fixture]


@pytest.fixture(scope="module")
def book() -> PriceBook:
    catalogue = read_catalogue()
    return book_of(catalogue.prices, {CATALOGUE: catalogue.aliases})


def test_most_fixtures_have_a_cost() -> None:
    assert len(PRICED) == 62


@pytest.mark.parametrize("name", PRICED)
def test_a_response_costs_what_it_must(book: PriceBook, name: str) -> None:
    fixture: dict[str, Any] = FIXTURES[name]
    answer = fixture.get("events", fixture.get("response"))
    settings = {key: fixture.get(key) for key in ("model", "provider", "request")}
    reading = quantities.read(fixture["shape"], answer, **settings)
    at = microseconds(dt.datetime.fromisoformat(fixture["cost"]["at"]))
    total = Decimal(0)
    for part, wanted in zip(reading.parts, fixture["cost"]["parts"], strict=True):
        provider, _, model = wanted["genai_model"].partition("/")
        event = ("chat", provider, model, part.pools, at)
        cost = format_usd(book.price(*event))
        assert Decimal(cost) == Decimal(wanted["usd"])
        receipt = explain(book, PriceTerms(*event))
        assert (receipt.cost, {line.unit for line in receipt.lines}) == (cost, {*part.pools})
        total += Decimal(cost)
    assert total == Decimal(fixture["cost"]["usd"])
