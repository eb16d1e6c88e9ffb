"""`Meter.price` and the booking: one answer, on the vectors, on random books and events, and across a change of price."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from hypothesis_profile import examples
from taximeter import (
    ClosedError,
    ConfigurationError,
    InvalidEventError,
    Meter,
    OutOfRangeError,
    PriceMissingError,
    PricesUnavailableError,
    names,
)
from taximeter import price_cache as cache
from taximeter.names import STANDARD_UNITS
from taximeter.pricing import terms
from taximeter.pricing.price_book import PriceBook
from taximeter.pricing.price_index import microseconds
from taximeter.pricing.published import pack, unpack
from taximeter_db import money
from taximeter_db.connect import connection
from taximeter_db.prices import terms as db_terms
from taximeter_db.prices.changes import set_price
from taximeter_db.prices.store import Entry, Price, Target, Tier, Window
from taximeter_worker.pricing.loading import load_book, seed
from taximeter_worker.pricing.publishing import publish_book
from waiting import eventually
from workers import Ledger, WorkerProcess

VECTORS = Path(__file__).parents[1] / "data" / "prices" / "vectors.json"
AS_OF = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)


@pytest.fixture
def meter(redis_url: str) -> Iterator[Meter]:
    with Meter(redis_url=redis_url, timeout_seconds=2.0) as meter:
        yield meter


def publish(client: redis.Redis, entries: list[Entry], revision: int = 1, aliases: Any = None) -> PriceBook:
    book = PriceBook(revision, entries, aliases)
    publish_book(client, pack(book))
    return book


def requests_cost(amount: str, revision: int = 1) -> list[Entry]:
    return [
        Entry(
            id=revision, revision=revision, target=Target("chat", None, None), unit="requests", amount=Decimal(amount)
        )
    ]


def test_both_sides_know_the_same_rules_and_the_same_money() -> None:
    for name in ("FEE", "MULTIPLIER", "MINIMUM", "MAXIMUM", "MISSING", "DAY_SECONDS"):
        assert getattr(terms, name) == getattr(db_terms, name)
    assert set(db_terms.RULES) == terms.RULE_UNITS
    assert (terms.PICO_PER_USD, terms.AMOUNT_LIMIT) == (money.PICO_PER_USD, money.AMOUNT_LIMIT)
    assert terms.Target("t", "p", "m", "w") == Target("t", "p", "m", "w")
    assert hash(terms.Target("t", None, None)) == hash(Target("t", None, None))


def test_the_vectors_cost_the_same_in_a_tool(database_url: str, redis_client: redis.Redis, meter: Meter) -> None:
    vectors = json.loads(VECTORS.read_text(), parse_float=Decimal)["vectors"]
    with connection(database_url) as conn:
        seed(conn)
        book = load_book(conn)
    packed = pack(book)
    assert len(packed.book) < 300_000
    publish_book(redis_client, packed)
    for vector in vectors:
        event = {name: vector[name] for name in ("provider", "model", "quantities")}
        cost = meter.price("acme", tool="chat", time=AS_OF, **event)
        assert cost == Decimal(vector["expected_usd"]), vector["id"]
        booked = book.price("chat", vector["provider"], vector["model"], vector["quantities"], microseconds(AS_OF))
        assert cost == Decimal(money.format_usd(booked))


MOMENTS = [None, dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.datetime(2026, 7, 1, tzinfo=dt.UTC)]
amounts = st.decimals(0, 1000, places=8) | st.decimals(0, 1, places=20)
targets = st.sampled_from(
    [
        Target("chat", None, None),
        Target(None, "openai", "gpt-4o"),
        Target("chat", "openai", "gpt-4o"),
        Target(None, "openai", "other"),
    ]
)
units = st.sampled_from([*STANDARD_UNITS, "own_unit"])


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """Any kind of entry, valid by itself."""
    kind = draw(
        st.sampled_from(
            ["flat", "flat", "tiers", "daily", "package", "graduated", "volume", "rule", "workspace", "policy"]
        )
    )
    fields: dict[str, Any] = {"target": draw(targets), "unit": draw(units), "amount": draw(amounts)}
    fields["per"] = draw(st.sampled_from([Decimal(1), Decimal(1_000_000), Decimal(7), Decimal("0.3")]))
    if kind in {"tiers", "graduated", "volume"}:
        fields["tiers"] = tuple(
            Tier(above, draw(amounts)) for above in sorted(draw(st.sets(st.integers(0, 10**6), min_size=1, max_size=3)))
        )
    if kind == "daily":
        fields["daily"] = (Window(0, 43_200, draw(amounts)), Window(50_000, 86_400, draw(amounts)))
    if kind in {"package", "graduated", "volume"}:
        fields["charge"] = kind
    if kind in {"rule", "workspace"}:
        fields["unit"] = draw(st.sampled_from(["@fee", "@multiplier", "@minimum", "@maximum"]))
        fields["per"] = Decimal(1)
    if kind == "workspace":
        fields |= {"target": Target(draw(st.sampled_from([None, "chat"])), None, None, "acme"), "unit": "@multiplier"}
    if kind == "policy":
        fields |= {"target": Target("chat", None, None), "unit": "@missing", "amount": Decimal(0), "per": Decimal(1)}
        fields |= draw(st.sampled_from([{"charge": "free"}, {"charge": "estimate", "fallback": ("openai", "other")}]))
    start = draw(st.sampled_from(MOMENTS))
    until = draw(st.sampled_from([None, None, dt.datetime(2026, 10, 1, tzinfo=dt.UTC)]))
    number = draw(st.integers(1, 50))
    return Entry(**fields, effective_from=start, effective_until=until, id=number, revision=number, source="by hand")


ALIASES = {
    "b": {
        "providers": [["contains", "azure", "openai"]],
        "models": {"openai": [["starts_with", "gpt-4", "gpt-4o"]]},
        "fallbacks": {},
    },
    "a": {"providers": [], "models": {}, "fallbacks": {"reseller": ["openai"]}},
}
quantities = st.dictionaries(units, st.integers(0, 10**9) | st.decimals(0, 10**6, places=6), min_size=1, max_size=5)
random_events = st.tuples(
    st.sampled_from(["chat", "mail"]),
    st.sampled_from(
        [
            ("openai", "gpt-4o"),
            ("openai", "GPT-4o-2024-08-06"),
            ("azure", "gpt-4-turbo"),
            ("reseller", "gpt-4o"),
            (None, None),
        ]
    ),
    quantities,
    st.sampled_from([dt.datetime(year, month, 2, 3, tzinfo=dt.UTC) for year in (2025, 2026) for month in (1, 8, 12)]),
    st.sampled_from(["acme", "other"]),
)


def outcome(book: PriceBook, event: tuple[Any, ...]) -> Any:
    tool, (provider, model), units, moment, workspace = event
    try:
        return book.quote(tool, provider, model, units, microseconds(moment), workspace)
    except (PriceMissingError, OutOfRangeError) as error:
        return type(error), str(error)


@given(st.lists(entries(), min_size=1, max_size=15), st.lists(random_events, min_size=1, max_size=8))
@settings(max_examples=examples(200), deadline=None)
def test_a_published_book_prices_every_event_as_the_booking_does(
    book_entries: list[Entry], events: list[tuple[Any, ...]]
) -> None:
    book = PriceBook(50, book_entries, ALIASES)
    published = unpack(pack(book).book)
    assert published.revision == 50
    for event in events:
        assert outcome(published, event) == outcome(book, event)


def test_a_change_of_price_reaches_tools_and_each_usage_costs_what_its_tool_was_told(
    priced_url: str,
    new_worker: Callable[..., WorkerProcess],
    broker_url: str,
    redis_url: str,
    ledger: Ledger,
    tmp_path: Path,
) -> None:
    new_worker(priced_url, broker_url, redis_url).start()
    event: dict[str, Any] = {"tool": "chat", "provider": "p", "model": "m", "quantities": {"input_tokens": 12_345}}
    told: dict[str, Decimal] = {}
    with Meter(broker_url=broker_url, redis_url=redis_url, spool=tmp_path, timeout_seconds=2.0) as meter:

        def tell(amount: str) -> bool:
            try:
                return meter.price("acme", **event) == Decimal(amount)
            except PricesUnavailableError:
                return False

        for amount, per_million in (("0.012345", None), ("0.03086250", "2.5"), ("0", "0")):
            if per_million is not None:
                price = Price(
                    target=Target(None, "p", "m"),
                    unit="input_tokens",
                    amount=Decimal(per_million),
                    per=Decimal(1_000_000),
                    effective_from=dt.datetime.now(dt.UTC),
                )
                with connection(priced_url) as conn:
                    set_price(conn, price, backdated=True)
            eventually(lambda amount=amount: tell(amount), what=f"the price {amount}")
            for _ in range(3):
                cost = meter.price("acme", **event)
                told[meter.record("acme", **event)] = cost
        meter.flush(timeout=20)
    eventually(lambda: ledger.usages == 9, what="nine usages")
    with connection(priced_url) as conn:
        rows = conn.execute("SELECT event_id, cost FROM taximeter.usage_log").fetchall()
    assert dict(rows) == told
    assert {*told.values()} == {Decimal("0.012345"), Decimal("0.0308625"), Decimal(0)}


def test_workers_publish_again_what_redis_lost_or_a_slower_worker_overwrote(
    runtime: Any, redis_client: redis.Redis, meter: Meter
) -> None:
    event: dict[str, Any] = {"tool": "chat", "provider": "p", "model": "m", "quantities": {"input_tokens": 1_000_000}}
    eventually(lambda: redis_client.exists(names.PRICES), what="the price book")
    assert meter.price("acme", **event) == 1
    tag = redis_client.hget(names.PRICES, "tag")
    redis_client.flushdb()
    eventually(lambda: redis_client.hget(names.PRICES, "tag") == tag, what="the price book again")
    publish(redis_client, requests_cost("7"), revision=0)
    eventually(lambda: redis_client.hget(names.PRICES, "tag") == tag, what="the newer price book")


def test_a_tool_follows_a_changed_book_and_keeps_the_last_one_for_the_grace_time(
    redis_client: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(redis_client, requests_cost("1"))
    clock = [1000.0]
    monkeypatch.setattr(cache.time, "monotonic", lambda: clock[0])
    with Meter(redis_url=redis_url, timeout_seconds=2.0, grace_seconds=10.0) as meter:
        event: dict[str, Any] = {"tool": "chat", "quantities": {"requests": 1}}
        assert meter.price("acme", **event) == 1
        publish(redis_client, requests_cost("2", revision=2), revision=2)
        assert meter.price("acme", **event) == 1, "not looked for yet"
        clock[0] += cache.LOOK_SECONDS
        assert meter.price("acme", **event) == 2
        redis_client.delete(names.PRICES)
        clock[0] += 10.0
        assert meter.price("acme", **event) == 2, "within the grace time"
        clock[0] += 1.0
        with pytest.raises(PricesUnavailableError, match="no worker has published"):
            meter.price("acme", **event)
        publish(redis_client, requests_cost("3", revision=3), revision=3)
        clock[0] += cache.LOOK_SECONDS
        assert meter.price("acme", **event) == 3


def test_what_cannot_be_priced_says_why(redis_client: redis.Redis, redis_url: str, meter: Meter) -> None:
    event: dict[str, Any] = {"tool": "chat", "quantities": {"requests": 1}}
    with pytest.raises(PricesUnavailableError, match="no worker has published"):
        meter.price("acme", **event)
    publish(redis_client, requests_cost("0.0000000000015"))
    eventually(lambda: not isinstance(_try(meter, event), PricesUnavailableError))
    assert meter.price("acme", **event) == Decimal("0.000000000002"), "rounded as the booking rounds"
    assert meter.price("acme", tool="chat", provider="", model="", quantities={"requests": Decimal("0.5")}) == Decimal(
        "0.000000000001"
    )
    assert meter.price("acme", tool="chat", quantities={"requests": 0.1}) == 0
    with pytest.raises(PriceMissingError, match="No price for pages of tool chat"):
        meter.price("acme", tool="chat", quantities={"pages": 1})
    for wrong, code in (
        ({"requests": -1}, "negative_quantity"),
        ({}, "quantity_required"),
        ({"requests": True}, "bad_type"),
    ):
        with pytest.raises(InvalidEventError) as rejection:
            meter.price("acme", tool="chat", quantities=wrong)
        assert rejection.value.code == code
    with pytest.raises(InvalidEventError, match="time zone"):
        meter.price("acme", **event, time=dt.datetime(2026, 1, 1))  # noqa: DTZ001
    redis_client.hset(names.PRICES, mapping={"tag": "x", "book": b"no book"})
    with (
        Meter(redis_url=redis_url, timeout_seconds=2.0) as other,
        pytest.raises(PricesUnavailableError, match="cannot be read"),
    ):
        other.price("acme", **event)
    meter.close()
    with pytest.raises(ClosedError):
        meter.price("acme", **event)
    with Meter() as bare, pytest.raises(ConfigurationError, match="TAXIMETER_REDIS_URL"):
        bare.price("acme", **event)


def _try(meter: Meter, event: dict[str, Any]) -> Any:
    try:
        return meter.price("acme", **event)
    except PricesUnavailableError as error:
        return error


def test_a_tool_that_asks_for_no_price_does_not_load_the_book() -> None:
    import subprocess
    import sys

    script = "import sys, taximeter; print('taximeter.pricing.price_book' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
