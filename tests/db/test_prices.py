"""The price store: what may be added, from when, and that nothing is ever changed."""

import datetime as dt
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from taximeter_db.connect import connection
from taximeter_db.prices.changes import ImportTerms, import_prices, set_price
from taximeter_db.prices.store import (
    BackdatedPriceError,
    Price,
    PriceError,
    PriceOverlapError,
    Target,
    Tier,
    current_revision,
    parse_decimal,
    read_aliases,
    read_entries,
    read_history,
    same_value,
)

CHAT = Target("chat", None, None)
GPT = Target(None, "openai", "gpt-4o")
PAST = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
FUTURE = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def conn(database_url: str) -> Iterator[Connection[Any]]:
    with connection(database_url) as conn:
        yield conn


def price(amount: str, target: Target = CHAT, unit: str = "requests", **fields: Any) -> Price:
    return Price(target=target, unit=unit, amount=Decimal(amount), **fields)


def test_an_empty_book_is_revision_0(conn: Connection[Any]) -> None:
    assert current_revision(conn) == 0
    assert read_entries(conn, 0) == []


def test_a_first_price_holds_since_ever_and_the_next_from_now_on(conn: Connection[Any]) -> None:
    first = set_price(conn, price("2.50"))
    assert (first.price.effective_from, first.previous, first.revision) == (None, None, 1)
    before = dt.datetime.now(dt.UTC)
    second = set_price(conn, price("3"))
    assert second.price.effective_from is not None
    assert before <= second.price.effective_from <= dt.datetime.now(dt.UTC)
    assert second.previous is not None
    assert second.previous.amount == Decimal("2.50")
    assert current_revision(conn) == second.revision == 2


def test_the_numbers_are_kept_as_given(conn: Connection[Any]) -> None:
    tiers = (Tier(200_000, Decimal("5.00")), Tier(10**17, Decimal("0.000000000000000000000000000001")))
    set_price(conn, price("2.50", per=Decimal("1000000.0"), tiers=tiers))
    (entry,) = read_history(conn, CHAT, "requests")
    assert (str(entry.amount), str(entry.per)) == ("2.50", "1000000.0")
    assert [(tier.above, f"{tier.amount:f}") for tier in entry.tiers] == [
        (200_000, "5.00"),
        (10**17, "0." + "0" * 29 + "1"),
    ]


def test_the_price_already_in_force_is_no_change(conn: Connection[Any]) -> None:
    set_price(conn, price("2.50", per=Decimal(1_000_000)))
    again = set_price(conn, price("0.0025", per=Decimal(1000)))
    assert (again.changed, again.revision, current_revision(conn)) == (False, 1, 1)


def test_an_overlap_is_refused_with_both_versions_named(conn: Connection[Any]) -> None:
    set_price(conn, price("1"), start=FUTURE)
    with pytest.raises(PriceOverlapError) as caught:
        set_price(conn, price("2"), start=FUTURE, backdated=True)
    assert "1 per 1 from 2100-01-01T00:00:00Z (by hand, revision 1)" in str(caught.value)
    assert "2 per 1 from 2100-01-01T00:00:00Z" in str(caught.value)
    assert current_revision(conn) == 1


def test_a_back_dated_price_must_say_so(conn: Connection[Any]) -> None:
    set_price(conn, price("1"))
    with pytest.raises(BackdatedPriceError) as caught:
        set_price(conn, price("2"), start=PAST)
    assert "1 per 1 from the beginning (by hand, revision 1)" in str(caught.value)
    assert "2 per 1 from 2026-01-01T00:00:00Z" in str(caught.value)
    assert "--backdated" in str(caught.value)
    done = set_price(conn, price("2"), start=PAST, backdated=True)
    assert (done.revision, done.price.effective_from) == (2, PAST)


def test_a_past_start_before_any_price_changes_nothing_and_is_allowed(conn: Connection[Any]) -> None:
    set_price(conn, price("1"), start=PAST)
    assert set_price(conn, price("2"), start=PAST - dt.timedelta(days=1)).changed


def test_a_price_only_for_the_future_leaves_the_present_since_ever(conn: Connection[Any]) -> None:
    set_price(conn, price("2"), start=FUTURE)
    assert set_price(conn, price("1")).price.effective_from is None


def test_targets_and_units_are_apart(conn: Connection[Any]) -> None:
    for target, unit in (
        (CHAT, "requests"),
        (CHAT, "images"),
        (GPT, "requests"),
        (Target("chat", *GPT[1:]), "requests"),
    ):
        assert set_price(conn, price("1", target, unit)).price.effective_from is None


@pytest.mark.parametrize(
    "wrong",
    [
        price("1", Target(None, None, None)),
        price("1", Target(None, "openai", None)),
        price("1", Target(None, None, "gpt-4o")),
        price("1", Target(" ", None, None)),
        price("1", Target("a\0b", None, None)),
        price("1", Target("x" * 257, None, None)),
        price("1", unit=""),
        price("1", unit="input tokens"),
        price("-1"),
        price("NaN"),
        price("Infinity"),
        price("1E+15"),
        price("1E-31"),
        price("1", per=Decimal(0)),
        price("1", per=Decimal("NaN")),
        price("1", tiers=(Tier(5, Decimal(1)), Tier(5, Decimal(2)))),
        price("1", tiers=(Tier(-1, Decimal(1)),)),
        price("1", tiers=(Tier(5, Decimal("NaN")),)),
    ],
)
def test_what_can_be_no_price_is_refused(conn: Connection[Any], wrong: Price) -> None:
    with pytest.raises(PriceError):
        set_price(conn, wrong)
    with pytest.raises(PriceError):
        import_prices(conn, [wrong], {}, ImportTerms("test"))
    assert current_revision(conn) == 0


@pytest.mark.parametrize("text", ["", "-1", "+1", "1e-6", "1_000", "1,5", ".5", "5.", "NaN", "٣", "1" * 16])
def test_only_plain_decimals_are_read(text: str) -> None:
    with pytest.raises(PriceError):
        parse_decimal(text, "--price")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (price("2.5", per=Decimal(1_000_000)), price("0.0025", per=Decimal(1000)), True),
        (price("1", per=Decimal(3)), price("0.333333333333333333333333333333"), False),
        (price("1", tiers=(Tier(5, Decimal(2)),)), price("1"), False),
        (price("1", tiers=(Tier(5, Decimal(2)),)), price("1.0", tiers=(Tier(5, Decimal("2.0")),)), True),
        (price("1", tiers=(Tier(5, Decimal(2)),)), price("1", tiers=(Tier(6, Decimal(2)),)), False),
    ],
)
def test_values_compare_exactly(one: Price, other: Price, same: bool) -> None:
    assert same_value(one, other) is same


def test_the_database_refuses_to_change_history(conn: Connection[Any]) -> None:
    import_prices(conn, [price("1")], {"x": {"providers": [], "models": {}, "fallbacks": {}}}, ImportTerms("test"))
    for table in ("price_entries", "price_revisions", "price_aliases"):
        for statement in (f"UPDATE taximeter.{table} SET revision = 9", f"DELETE FROM taximeter.{table}"):
            with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
                conn.execute(statement)
        with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
            conn.execute(f"TRUNCATE taximeter.{table}")


@pytest.mark.parametrize(
    "values",
    [
        "'NaN', 1, 'chat', NULL, NULL, '{}', '{}'",
        "'Infinity', 1, 'chat', NULL, NULL, '{}', '{}'",
        "-1, 1, 'chat', NULL, NULL, '{}', '{}'",
        "1, 0, 'chat', NULL, NULL, '{}', '{}'",
        "1, 'NaN', 'chat', NULL, NULL, '{}', '{}'",
        "1, 1, NULL, NULL, NULL, '{}', '{}'",
        "1, 1, NULL, 'openai', NULL, '{}', '{}'",
        "1, 1, 'chat', NULL, NULL, '{5}', '{}'",
        "1, 1, 'chat', NULL, NULL, '{5}', '{NaN}'",
        "1, 1, 'chat', NULL, NULL, '{5}', '{NULL}'",
        "1, 1, 'chat', NULL, NULL, '{-5}', '{1}'",
    ],
)
def test_the_database_itself_refuses_nonsense(conn: Connection[Any], values: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        conn.execute(
            "INSERT INTO taximeter.price_entries (amount, per, tool, provider, model, tier_above, tier_amounts,"
            f" revision, unit, source) VALUES ({values}, 1, 'requests', 'test')"
        )


def test_concurrent_changes_get_revisions_of_their_own(database_url: str) -> None:
    def change(number: int) -> int:
        with connection(database_url) as conn:
            return set_price(conn, price("1", Target(f"tool-{number % 4}", None, None), f"unit_{number}")).revision

    with ThreadPoolExecutor(4) as pool:
        revisions = list(pool.map(change, range(24)))
    assert sorted(revisions) == list(range(1, 25))


def test_an_import_is_one_revision_and_adds_nothing_twice(conn: Connection[Any]) -> None:
    book = [price("1"), price("2", effective_from=PAST), price("3", GPT), price("4", GPT, effective_from=FUTURE)]
    aliases = {"catalogue": {"providers": [], "models": {"openai": [["equals", "gpt4", "gpt-4o"]]}, "fallbacks": {}}}
    plan = import_prices(conn, book, aliases, ImportTerms("test"))
    assert (len(plan.added), plan.revision) == (4, 1)
    again = import_prices(conn, book, aliases, ImportTerms("test"))
    assert (again.empty, again.unchanged, again.revision) == (True, 4, 1)
    assert read_aliases(conn, 1) == aliases
    assert read_aliases(conn, 0) == {}


def test_a_dry_run_writes_nothing(conn: Connection[Any]) -> None:
    plan = import_prices(conn, [price("1")], {}, ImportTerms("test"), dry_run=True)
    assert len(plan.added) == 1
    assert current_revision(conn) == 0


def test_a_file_with_a_refused_price_is_not_imported_at_all(conn: Connection[Any]) -> None:
    set_price(conn, price("1"))
    wanted = [price("2", effective_from=PAST), price("9", unit="images")]
    plan = import_prices(conn, wanted, {}, ImportTerms("file"))
    assert [refusal.price.amount for refusal in plan.refused] == [2]
    assert "--backdated" in plan.refused[0].why
    assert current_revision(conn) == 1
    assert import_prices(conn, wanted, {}, ImportTerms("file", backdated=True)).revision == 2
    clash = import_prices(conn, [price("3", effective_from=PAST)], {}, ImportTerms("file", backdated=True))
    assert "Overlap" in clash.refused[0].why


def test_a_file_that_overlaps_itself_is_refused(conn: Connection[Any]) -> None:
    with pytest.raises(PriceOverlapError, match="within the import"):
        import_prices(conn, [price("1"), price("2")], {}, ImportTerms("file"))


def catalogue(conn: Connection[Any], *prices: Price) -> Any:
    return import_prices(conn, prices, {}, ImportTerms("test", catalogue="cat"))


def test_a_catalogue_changes_its_own_prices_from_now_on_never_the_past(conn: Connection[Any]) -> None:
    catalogue(conn, price("1", GPT, source="cat 1"))
    plan = catalogue(
        conn,
        price("5", GPT, source="cat 2"),
        price("2", GPT, source="cat 2", effective_from=PAST),
        price("3", GPT, source="cat 2", effective_from=FUTURE),
    )
    assert [(old.amount, new.amount) for old, new in plan.changed] == [(1, 2), (2, 3)]
    starts = [(entry.amount, entry.effective_from) for entry in read_history(conn, GPT, "requests")]
    assert starts[0] == (1, None)
    assert starts[1][1] > PAST
    assert starts[2] == (3, FUTURE)
    assert catalogue(
        conn, price("2", GPT, source="cat 3"), price("3", GPT, source="cat 3", effective_from=FUTURE)
    ).empty


def test_a_catalogue_leaves_a_price_set_by_hand_alone(conn: Connection[Any]) -> None:
    catalogue(conn, price("1", GPT, source="cat 1"))
    set_price(conn, price("7", GPT))
    plan = catalogue(conn, price("1", GPT, source="cat 1"))
    assert (plan.empty, len(plan.refused)) == (True, 1)
    assert plan.refused[0].existing.amount == 7


def test_a_catalogue_may_not_move_a_future_price_that_it_announced(conn: Connection[Any]) -> None:
    catalogue(conn, price("1", GPT, source="cat 1"), price("2", GPT, source="cat 1", effective_from=FUTURE))
    plan = catalogue(conn, price("1", GPT, source="cat 2"), price("3", GPT, source="cat 2", effective_from=FUTURE))
    assert [refusal.price.amount for refusal in plan.refused] == [3]
