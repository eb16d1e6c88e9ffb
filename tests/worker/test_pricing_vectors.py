"""The agreed vectors and the whole catalogue, through the store: import → load → price."""

import datetime as dt
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from taximeter.pricing.price_book import PriceBook
from taximeter.pricing.price_index import PriceTerms, microseconds
from taximeter_db.connect import connection
from taximeter_db.money import format_usd
from taximeter_db.prices.store import current_revision
from taximeter_worker.pricing.loading import load_book, seed
from taximeter_worker.pricing.receipt import explain

VECTORS = Path(__file__).parents[1] / "data" / "prices" / "vectors.json"
AS_OF = microseconds(dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC))


@pytest.fixture
def conn(database_url: str) -> Iterator[Connection[Any]]:
    with connection(database_url) as conn:
        yield conn


def test_the_33_vectors_price_exactly_from_a_seeded_database(conn: Connection[Any]) -> None:
    found = json.loads(VECTORS.read_text(), parse_float=Decimal)["vectors"]
    assert len(found) == 33
    assert seed(conn) > 6000
    book = load_book(conn)
    for vector in found:
        event = ("chat", vector["provider"], vector["model"], vector["quantities"], AS_OF)
        cost = book.price(*event)
        assert format_usd(cost) == vector["expected_usd"], vector["id"]
        receipt = explain(book, PriceTerms(*event))
        assert (receipt.cost, receipt.exact, receipt.rounding) == (vector["expected_usd"], vector["expected_usd"], "0")


def test_seeding_is_for_an_empty_book_only(conn: Connection[Any]) -> None:
    assert current_revision(conn) == 0
    added = seed(conn)
    assert added
    assert current_revision(conn) == 1
    assert seed(conn) == 0
    assert current_revision(conn) == 1
    assert conn.execute("SELECT count(*) FROM taximeter.price_entries").fetchone() == (added,)


@pytest.fixture(scope="module")
def catalogue_book() -> PriceBook:
    """The installed catalogue compiled without a database."""
    from taximeter_db.prices.store import Entry
    from taximeter_worker.pricing.genai_catalogue import CATALOGUE, read_catalogue

    catalogue = read_catalogue()
    entries = [
        Entry(**{name: getattr(price, name) for name in price.__struct_fields__}, id=number, revision=1)
        for number, price in enumerate(catalogue.prices, 1)
    ]
    return PriceBook(1, entries, {CATALOGUE: catalogue.aliases})


@pytest.mark.parametrize(
    ("provider", "model", "known_as"),
    [
        ("openai", "gpt-4o-2024-08-06", ("openai", "gpt-4o")),
        ("openai", "GPT-4o", ("openai", "gpt-4o")),
        ("anthropic", "claude-sonnet-4-5-20250929", ("anthropic", "claude-sonnet-4-5")),
        ("anthropic", "claude-opus-5-5-20261101", ("anthropic", "claude-opus-5-5")),
        ("openai", "gpt-6-sol-2026-09-01", ("openai", "gpt-6-sol")),
        ("azure", "gpt-4.1-nano", ("openai", "gpt-4.1-nano")),
        ("xai", "grok-4.3", ("x-ai", "grok-4.3")),
        ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", None),
        ("minimax", "minimax-m2", ("minimax", "MiniMax-M2")),
    ],
)
def test_names_resolve_as_the_catalogue_resolves_them(
    catalogue_book: PriceBook, provider: str, model: str, known_as: tuple[str, str] | None
) -> None:
    from genai_prices.data import providers
    from genai_prices.data_snapshot import DataSnapshot

    seller, info = DataSnapshot(providers=providers, from_auto_update=False).find_provider_model(
        model, None, provider, None
    )
    targets = catalogue_book.targets("chat", provider, model)
    assert targets
    assert targets[-1].model == info.id
    if known_as is not None:
        assert targets[-1][1:3] == known_as
    assert seller is not None


def test_every_name_that_the_catalogue_lists_resolves_to_the_model_it_means(catalogue_book: PriceBook) -> None:
    """All ids and all equals rules: several thousand names."""
    from genai_prices.data import providers

    from taximeter_worker.pricing.genai_catalogue import _patterns

    checked = 0
    for provider in providers:
        for model in provider.models:
            names = [model.id] + [pattern for kind, pattern in _patterns(model.match) if kind == "equals"]
            for name in names:
                meant = provider.find_model(name) or model
                targets = catalogue_book.targets("chat", provider.id, name)
                priced = any(
                    value is not None
                    for stage in (meant.prices if isinstance(meant.prices, list) else [meant])
                    for value in vars(stage.prices).values()
                )
                if priced:
                    assert targets, (provider.id, name)
                    assert targets[0][1:3] == (provider.id, meant.id), (provider.id, name)
                    checked += 1
    assert checked > 3000


def test_unpriced_and_unknown_models_are_missing_not_free(catalogue_book: PriceBook) -> None:
    from taximeter.errors import PriceMissingError

    for provider, model in (("openai", "moderation"), ("openai", "gpt-99"), ("nobody", "gpt-4o"), (None, "gpt-4o")):
        with pytest.raises(PriceMissingError):
            catalogue_book.price("chat", provider, model, {"input_tokens": 1}, AS_OF)


def test_dated_catalogue_prices_hold_from_their_date(catalogue_book: PriceBook) -> None:
    """deepseek-v4-pro: two dated prices; midnight lies outside its peak hours."""
    before, after = (
        catalogue_book.price("chat", "deepseek", "deepseek-v4-pro", {"output_tokens": 1_000_000}, microseconds(moment))
        for moment in (dt.datetime(2026, 8, 16, 23, 59, 59, tzinfo=dt.UTC), dt.datetime(2026, 8, 17, tzinfo=dt.UTC))
    )
    assert (format_usd(before), format_usd(after)) == ("0.87", "1.98")


def test_a_sub_pool_price_that_the_catalogue_ends_gives_way_to_its_parents(catalogue_book: PriceBook) -> None:
    """openrouter's gpt-oss-120b lost its cached price on 2026-11-03."""
    moment = microseconds(dt.datetime(2026, 11, 3, tzinfo=dt.UTC))
    event = ("chat", "openrouter", "openai/gpt-oss-120b")
    cached = catalogue_book.price(*event, {"cached_input_tokens": 1_000_000}, moment)
    assert cached == catalogue_book.price(*event, {"input_tokens": 1_000_000}, moment)
    assert catalogue_book.price(*event, {"cached_input_tokens": 1_000_000}, moment - 1) < cached


def test_time_of_day_prices_are_the_catalogues(catalogue_book: PriceBook) -> None:
    """Every quarter of an hour of a day, against the catalogue's own arithmetic."""
    from genai_prices import Usage, calc_price

    checked = 0
    for model in ("deepseek-chat", "deepseek-v4-flash", "deepseek-v4-pro"):
        for quarter in range(96):
            moment = dt.datetime(2026, 11, 22, tzinfo=dt.UTC) + dt.timedelta(minutes=15 * quarter)
            usage = Usage(input_tokens=1_000_000, output_tokens=1_000_000)
            theirs = calc_price(usage, model, provider_id="deepseek", genai_request_timestamp=moment).total_price
            quantities = {"input_tokens": 1_000_000, "output_tokens": 1_000_000}
            ours = catalogue_book.price("chat", "deepseek", model, quantities, microseconds(moment))
            assert Decimal(format_usd(ours)) == theirs, (model, moment)
            checked += 1
    assert checked == 288
