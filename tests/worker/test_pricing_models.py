"""Every price model: packages, tiers of quantity, hours, ends, rules for whole events, policies for missing prices."""

import datetime as dt
from decimal import Decimal
from fractions import Fraction
from math import ceil
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factories import make_usage
from hypothesis_profile import examples
from taximeter.errors import OutOfRangeError, PriceMissingError
from taximeter.pricing.price_book import PriceBook
from taximeter.pricing.price_index import PriceTerms, microseconds
from taximeter_db.ledger.events import Usage
from taximeter_db.money import PICO_PER_USD
from taximeter_db.prices.store import Entry, Target, Tier, Window
from taximeter_worker.consume.batch import price as price_batch
from taximeter_worker.pricing.price_file import read_book, write_book
from taximeter_worker.pricing.receipt import explain

CHAT = Target("chat", None, None)
GPT = Target(None, "openai", "gpt-4o")
BOTH = Target("chat", "openai", "gpt-4o")
ACME = Target(None, None, None, "acme")
NOON = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)
NOW = microseconds(NOON)
PICO = PICO_PER_USD


def entry(target: Target, unit: str, amount: str | int | Decimal, **fields: Any) -> Entry:
    return Entry(**{"id": 1, "revision": 1, "target": target, "unit": unit, "amount": Decimal(amount), **fields})


def tiers(*pairs: tuple[int, str | int]) -> tuple[Tier, ...]:
    return tuple(Tier(above, Decimal(amount)) for above, amount in pairs)


def usd(entries: list[Entry], quantities: dict[str, Any], at: int = NOW, workspace: str | None = None) -> Fraction:
    cost = PriceBook(1, entries).price("chat", "openai", "gpt-4o", quantities, at, workspace)
    return Fraction(cost, PICO)


@pytest.mark.parametrize(
    ("seconds", "blocks"), [(0, 0), (1, 1), (59, 1), (60, 1), ("60.000001", 2), (61, 2), (600, 10)]
)
def test_a_started_block_is_charged_whole(seconds: int | str, blocks: int) -> None:
    quantity = seconds if isinstance(seconds, int) else Decimal(seconds)
    package = entry(CHAT, "seconds", "0.03", per=Decimal(60), charge="package")
    assert usd([package], {"seconds": quantity}) == blocks * Fraction("0.03")


def test_graduated_tiers_price_each_part_and_volume_tiers_the_whole() -> None:
    steps = tiers((1000, 8), (5000, 5))
    graduated = entry(CHAT, "images", 10, charge="graduated", tiers=steps)
    volume = entry(CHAT, "images", 10, charge="volume", tiers=steps)
    for quantity, by_parts, by_whole in (
        (1000, 10_000, 10_000),
        (1001, 10_008, 8008),
        (5000, 10_000 + 32_000, 40_000),
        (6000, 10_000 + 32_000 + 5_000, 30_000),
    ):
        assert usd([graduated], {"images": quantity}) == by_parts
        assert usd([volume], {"images": quantity}) == by_whole
    receipt = explain(PriceBook(1, [graduated]), PriceTerms("chat", None, None, {"images": 6000}, NOW))
    assert [(line.quantity, line.amount, line.above) for line in receipt.lines] == [
        ("1000", "10", None),
        ("4000", "8", 1000),
        ("1000", "5", 5000),
    ]


def test_the_hours_of_the_day_are_utc_and_end_before_their_end() -> None:
    night = entry(GPT, "requests", 2, daily=(Window(0, 3600, Decimal(1)), Window(82_800, 86_400, Decimal(0))))
    midnight = microseconds(dt.datetime(2026, 11, 22, tzinfo=dt.UTC))
    for seconds, expected in ((0, 1), (3599, 1), (3600, 2), (82_799, 2), (82_800, 0), (86_399, 0), (86_400, 1)):
        assert usd([night], {"requests": 1}, midnight + seconds * 1_000_000) == expected
    assert usd([night], {"requests": 1}, -1) == 0  # the last microsecond of 1969


def test_a_price_with_an_end_is_missing_after_it_and_gives_way_to_a_less_specific_one() -> None:
    offer = entry(CHAT, "requests", 1, effective_until=NOON)
    assert usd([offer], {"requests": 1}, NOW - 1) == 1
    with pytest.raises(PriceMissingError):
        usd([offer], {"requests": 1}, NOW)
    assert usd([offer, entry(GPT, "requests", 5)], {"requests": 1}, NOW) == 5
    after = entry(CHAT, "requests", 3, effective_from=NOON + dt.timedelta(hours=1))
    with pytest.raises(PriceMissingError, match="only from 2026-11-22T13:00:00Z"):
        usd([offer, after], {"requests": 1}, NOW)
    assert usd([offer, after], {"requests": 1}, NOW + 3_600_000_000) == 3


def test_rules_for_events_apply_in_their_order() -> None:
    flat = entry(GPT, "input_tokens", 1)
    fee, markup = entry(CHAT, "@fee", "0.5"), entry(CHAT, "@multiplier", "1.2")
    discount = entry(ACME, "@multiplier", "0.5")
    least, most = entry(CHAT, "@minimum", 3), entry(CHAT, "@maximum", 10)
    assert usd([flat, markup], {"input_tokens": 5}) == 6
    assert usd([flat, fee, markup], {"input_tokens": 5}) == Fraction("6.6")
    rules = [flat, fee, markup, discount]
    assert usd(rules, {"input_tokens": 5}, workspace="acme") == Fraction("3.3")
    assert usd(rules, {"input_tokens": 5}, workspace="other") == Fraction("6.6")
    assert usd([*rules, least], {"input_tokens": 1}, workspace="acme") == 3
    assert usd([*rules, least, most], {"input_tokens": 100}) == 10
    receipt = explain(
        PriceBook(1, [*rules, least]), PriceTerms("chat", "openai", "gpt-4o", {"input_tokens": 1}, NOW, "acme")
    )
    assert [(step.rule, step.amount, step.exact) for step in receipt.steps] == [
        ("charge per event", "0.5", "1.5"),
        ("multiplier", "1.2", "1.8"),
        ("multiplier", "0.5", "0.9"),
        ("minimum charge", "3", "3"),
    ]


def test_a_workspace_multiplier_for_one_tool_replaces_its_general_one() -> None:
    rules = [
        entry(GPT, "requests", 10),
        entry(ACME, "@multiplier", 2),
        entry(ACME._replace(tool="chat"), "@multiplier", 3),
    ]
    assert usd(rules, {"requests": 1}, workspace="acme") == 30
    book = PriceBook(1, rules)
    assert book.price("mail", "openai", "gpt-4o", {"requests": 1}, NOW, "acme") == 20 * PICO


def test_no_event_can_name_a_rule() -> None:
    with pytest.raises(PriceMissingError):
        usd([entry(GPT, "requests", 1), entry(GPT, "@fee", 1)], {"requests": 1, "@fee": 1})
    with pytest.raises(PriceMissingError):
        usd([entry(GPT, "@multiplier", 1)], {"@multiplier": 1})


def test_a_missing_price_is_free_or_estimated_only_by_the_tools_policy() -> None:
    entries = [entry(GPT, "input_tokens", 2)]
    event = ("chat", "openai", "new-model", {"input_tokens": 5, "pages": 1}, NOW)
    with pytest.raises(PriceMissingError):
        PriceBook(1, entries).price(*event)
    free = entry(CHAT, "@missing", 0, charge="free")
    assert PriceBook(1, [*entries, free]).quote(*event) == (0, False)
    estimate = entry(CHAT, "@missing", 0, charge="estimate", fallback=("openai", "gpt-4o"))
    book = PriceBook(1, [*entries, estimate])
    with pytest.raises(PriceMissingError, match="pages"):
        book.price(*event)
    event[3].pop("pages")
    assert book.quote(*event) == (10 * PICO, True)
    receipt = explain(book, PriceTerms(*event))
    assert receipt.estimated
    assert (receipt.lines[0].policy, receipt.lines[0].target) == ("estimate", "openai gpt-4o")
    back = entry(CHAT, "@missing", 0, charge="quarantine", revision=2)
    with pytest.raises(PriceMissingError):
        PriceBook(2, [*entries, estimate, back]).price(*event)


def usage(quantities: dict[str, Any], **fields: Any) -> Usage:
    return make_usage(quantities=quantities, **{"occurred_at": NOW, **fields})


def test_an_estimate_is_marked_in_the_price_version() -> None:
    estimate = entry(CHAT, "@missing", 0, charge="estimate", fallback=("openai", "gpt-4o"))
    book = PriceBook(7, [entry(GPT, "input_tokens", 2), estimate])
    batch = [usage({"input_tokens": 1}), usage({"input_tokens": 1}, model="new")]
    assert price_batch(book, batch, []) == batch
    assert [found.price_version for found in batch] == [7, -7]


amounts = st.integers(0, 50).map(Decimal) | st.decimals(0, 5, places=6)
pers = st.sampled_from([Decimal(1), Decimal(60), Decimal(7), Decimal(1000)])
units = st.sampled_from(["input_tokens", "cached_input_tokens", "output_tokens", "images", "seconds", "requests"])
rising = st.lists(st.tuples(st.integers(0, 5000), amounts), min_size=1, max_size=3, unique_by=lambda tier: tier[0])
windows = st.lists(st.integers(0, 86_400), min_size=2, max_size=2, unique=True)


@st.composite
def prices(draw: st.DrawFn) -> Entry:
    charge = draw(st.sampled_from(["flat", "flat", "context", "package", "graduated", "volume", "daily"]))
    fields: dict[str, Any] = {"per": draw(pers), "charge": charge}
    if charge in {"graduated", "volume", "context"}:
        fields["tiers"] = tuple(Tier(*tier) for tier in sorted(draw(rising), key=lambda tier: tier[0]))
    if charge == "daily":
        fields["daily"] = (Window(*sorted(draw(windows)), draw(amounts)),)
    if charge in {"context", "daily"}:
        fields["charge"] = "flat"
    if draw(st.booleans()):
        fields["effective_until"] = NOON + dt.timedelta(hours=draw(st.sampled_from([-1, 1])))
    return entry(draw(st.sampled_from([CHAT, GPT, BOTH])), draw(units), draw(amounts), **fields)


rules = st.builds(
    entry,
    st.sampled_from([CHAT, GPT]),
    st.sampled_from(["@fee", "@multiplier", "@minimum", "@maximum"]),
    amounts,
) | st.builds(lambda amount: entry(ACME, "@multiplier", amount), amounts)
books = st.lists(prices() | prices() | rules, min_size=1, max_size=10, unique_by=lambda e: (e.target, e.unit))
events = st.dictionaries(units, st.integers(0, 8000) | st.decimals(0, 8000, places=6), min_size=1, max_size=4)


def by_hand(found: Entry, quantity: Fraction, tokens: Fraction) -> Fraction:
    """One pool's cost, written down once more."""
    per = Fraction(found.per)
    if found.charge == "package":
        return ceil(quantity / per) * Fraction(found.amount)
    if found.charge == "graduated":
        edges = [0, *(tier.above for tier in found.tiers)]
        rates = [found.amount, *(tier.amount for tier in found.tiers)]
        total = Fraction(0)
        for index, rate in enumerate(rates):
            upper = edges[index + 1] if index + 1 < len(edges) else None
            part = (quantity if upper is None else min(quantity, Fraction(upper))) - edges[index]
            total += max(part, Fraction(0)) * Fraction(rate) / per
        return total
    amount = found.amount
    for tier in found.tiers:
        if (tokens if found.charge == "flat" else quantity) > tier.above:
            amount = tier.amount
    for window in found.daily:
        if window.start <= 12 * 3600 < window.end:
            amount = window.amount
    return quantity * Fraction(amount) / per


def oracle(entries: list[Entry], quantities: dict[str, Any]) -> Fraction | None:
    holds = {(e.target, e.unit): e for e in entries if e.effective_until is None or e.effective_until > NOON}
    tokens = sum((Fraction(quantities.get(u, 0)) for u in ("input_tokens", "cached_input_tokens")), Fraction(0))
    total = Fraction(0)
    for unit, quantity in quantities.items():
        names = [unit, "input_tokens"] if unit == "cached_input_tokens" else [unit]
        found = next((holds[t, n] for t in (BOTH, CHAT, GPT) for n in names if (t, n) in holds), None)
        if found is None and quantity:
            return None
        if found is not None:
            total += by_hand(found, Fraction(quantity), tokens)

    def rule(name: str) -> Fraction | None:
        return next((Fraction(holds[t, name].amount) for t in (CHAT, GPT) if (t, name) in holds), None)

    total += rule("@fee") or 0
    for factor in (rule("@multiplier"), holds.get((ACME, "@multiplier"))):
        total *= 1 if factor is None else Fraction(factor.amount if isinstance(factor, Entry) else factor)
    total = max(total, rule("@minimum") or Fraction(0))
    most = rule("@maximum")
    return total if most is None else min(total, most)


@given(books, st.lists(events, min_size=1, max_size=4))
@settings(max_examples=examples(300), deadline=None)
def test_one_batch_receipt_and_oracle_agree(entries: list[Entry], batch: list[dict[str, Any]]) -> None:
    book = PriceBook(3, entries)
    usages = [usage(quantities) for quantities in batch]
    rejected: list[Any] = []
    price_batch(book, usages, rejected)  # the batch fills the fast path's memory for the next ones too
    booked = price_batch(book, usages * 2, rejected)
    missing = 0
    for found, quantities in zip(usages, batch, strict=True):
        expected = oracle(entries, quantities)
        event = ("chat", "openai", "gpt-4o", quantities, NOW, "acme")
        if expected is None:
            missing += 1
            assert found not in booked
            with pytest.raises(PriceMissingError):
                book.price(*event)
            continue
        assert found.cost == book.price(*event) == round(expected * PICO)
        receipt = explain(book, PriceTerms(*event))
        assert Fraction(receipt.exact) == expected
        assert sum((Fraction(line.cost) for line in receipt.lines), Fraction(0)) == Fraction(receipt.subtotal)
        assert (
            Fraction(receipt.exact) + Fraction(receipt.rounding) == Fraction(receipt.cost) == Fraction(found.cost, PICO)
        )
        for line in receipt.lines:
            if line.blocks is not None:
                assert line.blocks * Fraction(line.amount or 0) == Fraction(line.cost)
            elif line.amount is not None:
                assert Fraction(line.quantity) * Fraction(line.amount) / Fraction(line.per or 1) == Fraction(line.cost)
    assert len(rejected) == 3 * missing


def monotone(found: Entry) -> bool:
    if found.charge == "graduated" or not found.tiers:
        return True
    steps = [found.amount, *(tier.amount for tier in found.tiers)]
    return steps == sorted(steps)


@given(books, events, units, st.integers(1, 5000))
@settings(max_examples=examples(200), deadline=None)
def test_more_usage_never_costs_less_where_the_book_is_monotone(
    entries: list[Entry], quantities: dict[str, Any], unit: str, more: int
) -> None:
    book = PriceBook(1, [found for found in entries if monotone(found)])
    grown = {**quantities, unit: quantities.get(unit, 0) + more}
    try:
        before, after = (book.price("chat", "openai", "gpt-4o", event, NOW, "acme") for event in (quantities, grown))
    except (PriceMissingError, OutOfRangeError):
        return
    assert after >= before


@given(books)
@settings(max_examples=examples(100), deadline=None)
def test_a_file_reads_back_as_it_was_written(entries: list[Entry]) -> None:
    ordered = PriceBook(1, entries).entries()
    text = write_book(ordered, {})
    again, aliases = read_book(text.encode())
    assert write_book(again, aliases) == text
    plain = [
        {name: getattr(found, name) for name in found.__struct_fields__ if name not in {"id", "revision"}}
        for found in ordered
    ]
    assert [{name: getattr(found, name) for name in found.__struct_fields__} for found in again] == plain


def test_a_missing_unit_beside_a_rate_that_is_a_fraction_is_not_charged_as_nothing() -> None:
    batch = [usage({"seconds": 1}), usage({"pages": 1})]
    book = PriceBook(1, [entry(GPT, "seconds", 1, per=Decimal(7_000_000_000_000_000))])
    rejected: list[Any] = []
    for _ in range(2):
        assert price_batch(book, batch, rejected) == batch[:1]
    assert len(rejected) == 2
