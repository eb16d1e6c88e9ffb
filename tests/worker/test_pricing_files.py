"""The price file, the catalogue import, and the book at an older revision."""

import datetime as dt
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import Connection

from hypothesis_profile import examples
from taximeter.errors import PriceMissingError
from taximeter_db.connect import connection
from taximeter_db.prices.changes import ImportTerms, import_prices, set_price
from taximeter_db.prices.store import Price, Target, Tier, current_revision, read_aliases
from taximeter_worker.pricing.errors import BookFileError
from taximeter_worker.pricing.genai_catalogue import CATALOGUE, read_catalogue
from taximeter_worker.pricing.loading import load_book, seed
from taximeter_worker.pricing.price_file import FORMAT, read_book, write_book

CHAT = Target("chat", None, None)


@pytest.fixture
def conn(database_url: str) -> Iterator[Connection[Any]]:
    with connection(database_url) as conn:
        yield conn


def exported(conn: Connection[Any]) -> str:
    book = load_book(conn)
    return write_book(book.entries(), read_aliases(conn, book.revision))


def test_export_and_import_are_inverse_for_the_whole_catalogue(new_database: Callable[[], str]) -> None:
    with connection(new_database()) as first, connection(new_database()) as second:
        seed(first)
        set_price(first, Price(target=CHAT, unit="requests", amount=Decimal("0.10"), per=Decimal(1000)))
        set_price(first, Price(target=CHAT, unit="requests", amount=Decimal("0.20"), per=Decimal(1000)))
        text = exported(first)
        prices, aliases = read_book(text.encode())
        plan = import_prices(second, prices, aliases, ImportTerms("file"))
        assert not plan.refused
        assert exported(second) == text
        assert import_prices(second, prices, aliases, ImportTerms("file")).empty


texts = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=20).filter(
    lambda text: text.strip()
)
targets = (
    st.builds(lambda tool: Target(tool, None, None), texts)
    | st.builds(lambda provider, model: Target(None, provider, model), texts, texts)
    | st.tuples(texts, texts, texts).map(lambda names: Target(*names))
)
amounts = st.decimals(0, 10**9, places=2) | st.decimals(0, 1, places=20)
tiers = st.lists(st.integers(0, 10**9), max_size=3, unique=True).flatmap(
    lambda above: st.tuples(*(st.builds(Tier, st.just(one), amounts) for one in sorted(above)))
)
prices = st.builds(
    Price,
    target=targets,
    unit=st.sampled_from(["requests", "input_tokens", "gpu-hours.v2"]),
    amount=amounts,
    per=st.sampled_from([Decimal(1), Decimal("1000000.0"), Decimal("0.5")]),
    tiers=tiers,
    effective_from=st.none() | st.datetimes(timezones=st.just(dt.UTC)),
    source=texts,
)


@given(st.lists(prices, max_size=5))
@settings(max_examples=examples(100), deadline=None)
def test_a_price_file_reads_back_as_written(book: list[Price]) -> None:
    found, _ = read_book(write_book(book, {}).encode())
    assert found == book
    assert [f"{price.amount:f}" for price in found] == [f"{price.amount:f}" for price in book]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"", "not a price file"),
        (b"[]", "not a price file"),
        (b"\xff", "not a price file"),
        (b'{"format": "other", "prices": []}', "other"),
        (b'{"format": "%s", "prices": [{"unit": "u", "amount": 2.5}]}', "not a price file"),
        (b'{"format": "%s", "prices": [{"unit": "u", "amount": "2.5"}]}', "Price 1 of the file"),
        (b'{"format": "%s", "prices": [{"tool": "t", "unit": "u", "amount": "NaN"}]}', "Price 1 of the file"),
        (b'{"format": "%s", "prices": [{"tool": "t", "unit": "u", "amount": "1", "pre": "2"}]}', "pre"),
        (
            b'{"format": "%s", "prices": [{"tool": "t", "unit": "u", "amount": "1", "effective_from": "2026-01-01T00:00"}]}',
            "time zone",
        ),
        (b'{"format": "%s", "prices": [], "aliases": {"x": {"models": {"p": [["regex", "(a+)+$", "m"]]}}}}', "regex"),
    ],
)
def test_what_is_no_price_file_is_refused_with_the_place(text: bytes, what: str) -> None:
    with pytest.raises(BookFileError, match=what):
        read_book(text.replace(b"%s", FORMAT.encode()))


def test_a_second_catalogue_import_adds_nothing_and_keeps_prices_set_by_hand(conn: Connection[Any]) -> None:
    seed(conn)
    catalogue = read_catalogue()

    def again() -> Any:
        return import_prices(conn, catalogue.prices, {CATALOGUE: catalogue.aliases}, ImportTerms("import", CATALOGUE))

    assert again().empty
    assert current_revision(conn) == 1
    set_price(conn, Price(target=Target(None, "openai", "gpt-4o"), unit="input_tokens", amount=Decimal(9)))
    plan = again()
    assert plan.empty
    assert [(refusal.price.amount, refusal.existing.amount) for refusal in plan.refused] == [(Decimal("2.5"), 9)]


def test_the_catalogue_says_what_it_did_not_take_over() -> None:
    catalogue = read_catalogue()
    notes = " ".join(catalogue.notes)
    assert catalogue.source.startswith("genai-prices ")
    for what in ("batch processing", "no price in the catalogue"):
        assert what in notes
    assert "does not know" not in notes  # no unknown field, and hours of a known kind only


def test_an_older_revision_gives_the_older_cost_for_ever(conn: Connection[Any]) -> None:
    def requests(amount: str) -> Price:
        return Price(target=CHAT, unit="requests", amount=Decimal(amount))

    set_price(conn, requests("1"))
    first = load_book(conn)
    moment = 1_800_000_000_000_000
    set_price(conn, requests("2"))
    event = ("chat", None, None, {"requests": 1}, 2**61)
    assert [load_book(conn, revision).price(*event) // 10**12 for revision in (1, 2)] == [1, 2]
    assert load_book(conn, 1).price(*event) == first.price(*event)
    with pytest.raises(PriceMissingError):
        load_book(conn, 0).price("chat", None, None, {"requests": 1}, moment)


def test_the_exported_file_is_one_price_a_line(conn: Connection[Any]) -> None:
    set_price(conn, Price(target=CHAT, unit="requests", amount=Decimal("2.50"), per=Decimal(1000)))
    assert json.loads(exported(conn))["prices"][0] == {
        "tool": "chat",
        "unit": "requests",
        "amount": "2.50",
        "per": "1000",
        "tiers": [],
        "effective_from": None,
        "source": "by hand",
    }
    assert sum('"unit"' in line for line in exported(conn).splitlines()) == 1
