"""The compiled book: which price counts, exactness against rational arithmetic, receipts that add up."""

import datetime as dt
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypothesis_profile import examples
from taximeter.errors import OutOfRangeError, PriceMissingError
from taximeter.names import PARENT_UNITS, STANDARD_UNITS
from taximeter.pricing import price_book as book_module
from taximeter.pricing.price_book import PriceBook
from taximeter.pricing.price_index import PriceTerms, microseconds
from taximeter.pricing.rates import divide_half_even
from taximeter_db.money import PICO_PER_USD
from taximeter_db.prices.store import Entry, Target, Tier
from taximeter_worker.pricing.receipt import explain

CHAT = Target("chat", None, None)
GPT = Target(None, "openai", "gpt-4o")
BOTH = Target("chat", "openai", "gpt-4o")
NOON = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)
NOW = microseconds(NOON)
PICO = PICO_PER_USD


def entry(target: Target, unit: str, amount: str | Decimal, **fields: Any) -> Entry:
    return Entry(**{"id": 1, "revision": 1, "target": target, "unit": unit, "amount": Decimal(amount), **fields})


def cost(entries: list[Entry], quantities: dict[str, Any], at: int = NOW, tool: str = "chat") -> int:
    return PriceBook(1, entries).price(tool, "openai", "gpt-4o", quantities, at)


def test_the_most_specific_target_counts_per_unit() -> None:
    entries = [entry(GPT, "input_tokens", 1), entry(GPT, "output_tokens", 10), entry(CHAT, "input_tokens", 2)]
    assert cost(entries, {"input_tokens": 1, "output_tokens": 1}) == 12 * PICO
    entries.append(entry(BOTH, "input_tokens", 3))
    assert cost(entries, {"input_tokens": 1, "output_tokens": 1}) == 13 * PICO
    assert cost(entries, {"input_tokens": 1, "output_tokens": 1}, tool="mail") == 11 * PICO


def test_the_target_counts_before_the_unit() -> None:
    entries = [entry(GPT, "cached_input_tokens", 1), entry(CHAT, "input_tokens", 5)]
    assert cost(entries, {"cached_input_tokens": 1}) == 5 * PICO


@pytest.mark.parametrize("unit", sorted(PARENT_UNITS))
def test_a_sub_pool_without_a_price_takes_its_parents_to_the_end(unit: str) -> None:
    root = unit
    while root in PARENT_UNITS:
        root = PARENT_UNITS[root]
    assert cost([entry(GPT, root, 7)], {unit: 2}) == 14 * PICO
    assert cost([entry(GPT, root, 7), entry(GPT, PARENT_UNITS[unit], 3)], {unit: 2}) == 6 * PICO
    assert cost([entry(GPT, root, 7), entry(GPT, unit, 1)], {unit: 2}) == 2 * PICO


def test_a_parent_never_takes_a_childs_price() -> None:
    with pytest.raises(PriceMissingError):
        cost([entry(GPT, "cached_input_tokens", 1)], {"input_tokens": 1})


@pytest.mark.parametrize("unit", ["requests", "seconds", "gpu_hours"])
def test_what_has_no_price_is_missing_and_says_what_to_do(unit: str) -> None:
    with pytest.raises(PriceMissingError) as caught:
        cost([entry(GPT, "input_tokens", 1)], {"input_tokens": 1, unit: 1})
    assert caught.value.unit == unit
    assert "2026-11-22T12:00:00Z" in str(caught.value)
    assert f"taximeter prices set --provider openai --model gpt-4o --unit {unit} --price AMOUNT" in str(caught.value)


def test_names_in_the_advice_are_quoted_for_the_shell() -> None:
    with pytest.raises(PriceMissingError, match=r"--tool 'a; rm -rf b'"):
        PriceBook(0, []).price("a; rm -rf b", None, None, {"requests": 1}, NOW)


def test_a_model_without_its_provider_is_missing_and_says_why() -> None:
    with pytest.raises(PriceMissingError, match="needs both"):
        PriceBook(1, [entry(GPT, "requests", 1)]).price("chat", None, "gpt-4o", {"requests": 1}, NOW)


def test_a_price_that_starts_later_is_missing_and_says_since_when() -> None:
    with pytest.raises(PriceMissingError, match=r"only from 2026-11-22T12:00:00Z"):
        cost([entry(GPT, "requests", 1, effective_from=NOON)], {"requests": 1}, NOW - 1)


def test_nothing_of_an_unpriced_unit_costs_nothing() -> None:
    assert cost([entry(GPT, "input_tokens", 1)], {"input_tokens": 1, "images": 0, "pages": Decimal(0)}) == PICO
    assert PriceBook(0, []).price("chat", None, None, {"requests": 0}, NOW) == 0


def test_an_event_is_priced_by_its_own_time() -> None:
    entries = [
        entry(GPT, "requests", 1),
        entry(GPT, "requests", 2, effective_from=NOON),
        entry(GPT, "requests", 3, effective_from=NOON + dt.timedelta(microseconds=1)),
    ]
    assert [cost(entries, {"requests": 1}, at) // PICO for at in (-(2**62), NOW - 1, NOW, NOW + 1, 2**62)] == [
        1,
        1,
        2,
        3,
        3,
    ]


def test_of_two_versions_from_one_moment_the_later_revision_counts() -> None:
    entries = [entry(GPT, "requests", 2, revision=2), entry(GPT, "requests", 1)]
    assert cost(entries, {"requests": 1}) == 2 * PICO


def test_long_context_tiers_look_at_all_input_and_reprice_every_unit() -> None:
    tiers = (Tier(100, Decimal(2)), Tier(200, Decimal(5)))
    entries = [
        entry(GPT, "input_tokens", 1, tiers=tiers),
        entry(GPT, "output_tokens", 10, tiers=(Tier(150, Decimal(20)),)),
    ]
    for cached, expected in (
        (50, 100 + 10),
        (51, 202 + 10),
        (100, 300 + 10),
        (101, 302 + 20),
        (150, 400 + 20),
        (151, 1005 + 20),
    ):
        quantities = {"input_tokens": 50, "cached_input_tokens": cached, "output_tokens": 1}
        assert cost(entries, quantities) == expected * PICO, cached


def test_a_tie_is_rounded_to_the_even_picodollar_once_on_the_total() -> None:
    half = [entry(GPT, "requests", "0.0000000000005"), entry(GPT, "images", "0.0000000000005")]
    assert [cost(half, {"requests": n}) for n in (1, 2, 3, 4, 5)] == [0, 1, 2, 2, 2]
    assert cost(half, {"requests": 1, "images": 1}) == 1
    assert cost(half, {"requests": 1, "images": 2}) == 2


def test_a_cost_beyond_the_ledger_is_out_of_range() -> None:
    entries = [entry(GPT, "requests", 1)]
    assert cost(entries, {"requests": 10**15 - 1}) == (10**15 - 1) * PICO
    with pytest.raises(OutOfRangeError):
        cost(entries, {"requests": 10**15})


def test_a_float_quantity_is_refused() -> None:
    with pytest.raises(TypeError):
        cost([entry(GPT, "requests", 1)], {"requests": 1.5})


def test_names_from_producers_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_module, "RESOLUTIONS_MAX", 10)
    book = PriceBook(1, [entry(CHAT, "requests", 1)])
    for number in range(100):
        assert book.price("chat", "p", f"model-{number}", {"requests": 1}, NOW) == PICO
    assert len(book._plans) <= 10


def test_an_exact_name_goes_before_its_alias_unit_by_unit() -> None:
    dated = Target(None, "openai", "gpt-4o-2024-08-06")
    entries = [entry(GPT, "input_tokens", 1), entry(GPT, "output_tokens", 10), entry(dated, "input_tokens", 2)]
    book = PriceBook(1, entries)
    quantities = {"input_tokens": 1, "output_tokens": 1}
    assert book.price("chat", "openai", "gpt-4o-2024-08-06", quantities, NOW) == 12 * PICO
    assert book.price("chat", "openai", "gpt-4o-2025-01-31", quantities, NOW) == 11 * PICO


amounts = st.decimals(0, 1000, places=8) | st.integers(0, 10**6).map(Decimal) | st.decimals(0, 1, places=15)
pers = st.sampled_from([Decimal(1), Decimal(1000), Decimal(1_000_000), Decimal(3600), Decimal(7), Decimal("0.3")])
tier_lists = st.lists(st.tuples(st.integers(0, 10**6), amounts), max_size=2, unique_by=lambda tier: tier[0]).map(
    lambda tiers: tuple(Tier(above, amount) for above, amount in sorted(tiers, key=lambda tier: tier[0]))
)
books = st.dictionaries(
    st.tuples(st.sampled_from([CHAT, GPT, BOTH]), st.sampled_from(STANDARD_UNITS)),
    st.tuples(amounts, pers, tier_lists),
    min_size=1,
    max_size=12,
).map(
    lambda prices: [
        entry(target, unit, amount, per=per, tiers=tiers, id=number)
        for number, ((target, unit), (amount, per, tiers)) in enumerate(prices.items(), 1)
    ]
)
numbers = st.integers(0, 10**9) | st.decimals(0, 10**6, places=6)
events = st.dictionaries(st.sampled_from(STANDARD_UNITS), numbers, min_size=1, max_size=6)


def naive(entries: list[Entry], quantities: dict[str, Any]) -> Fraction | None:
    """The documented rule, word for word, in rational numbers."""
    input_pools = [
        u for u in STANDARD_UNITS if u == "input_tokens" or u.startswith(("cached_input", "cache_write", "input_"))
    ]
    tokens = sum(Fraction(quantities.get(unit, 0)) for unit in input_pools)
    total = Fraction(0)
    for unit, quantity in quantities.items():
        found = None
        for target in (BOTH, CHAT, GPT):
            name: str | None = unit
            while name is not None and found is None:
                found = next((e for e in entries if (e.target, e.unit) == (target, name)), None)
                name = PARENT_UNITS.get(name)
            if found is not None:
                break
        if found is None:
            if quantity:
                return None
            continue
        amount = found.amount
        for tier in found.tiers:
            if tokens > tier.above:
                amount = tier.amount
        total += Fraction(quantity) * Fraction(amount) / Fraction(found.per)
    return total


@given(books, st.lists(events, min_size=1, max_size=5))
@settings(max_examples=examples(300), deadline=None)
def test_costs_are_exact_receipts_add_up_and_order_does_not_matter(
    entries: list[Entry], batch: list[dict[str, Any]]
) -> None:
    one_book = PriceBook(1, entries)
    for quantities in batch:
        expected = naive(entries, quantities)
        event = ("chat", "openai", "gpt-4o", quantities, NOW)
        if expected is None:
            with pytest.raises(PriceMissingError):
                one_book.price(*event)
            continue
        got = one_book.price(*event)
        assert got == round(expected * PICO)  # Fraction rounds half to even
        assert got == PriceBook(1, entries[::-1]).price(*event)
        receipt = explain(one_book, PriceTerms(*event))
        assert sum((Fraction(line.cost) for line in receipt.lines), Fraction(0)) == Fraction(receipt.exact) == expected
        assert receipt.subtotal == receipt.exact
        assert Fraction(receipt.exact) + Fraction(receipt.rounding) == Fraction(receipt.cost) == Fraction(got, PICO)
        for line in receipt.lines:
            if line.amount is not None and line.per is not None:
                assert Fraction(line.quantity) * Fraction(line.amount) / Fraction(line.per) == Fraction(line.cost)


@given(books, events, st.sampled_from(STANDARD_UNITS), st.integers(1, 10**6))
@settings(max_examples=examples(200), deadline=None)
def test_more_usage_never_costs_less_where_tiers_do_not_fall(
    entries: list[Entry], quantities: dict[str, Any], unit: str, more: int
) -> None:
    flat = [Entry(**{**{n: getattr(e, n) for n in e.__struct_fields__}, "tiers": ()}) for e in entries]
    book = PriceBook(1, flat)
    grown = {**quantities, unit: quantities.get(unit, 0) + more}
    try:
        before, after = (book.price("chat", "openai", "gpt-4o", event, NOW) for event in (quantities, grown))
    except PriceMissingError:
        return
    assert after >= before


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**20))
@settings(deadline=None)
def test_half_even_division(numerator: int, denominator: int) -> None:
    assert divide_half_even(numerator, denominator) == round(Fraction(numerator, denominator))
