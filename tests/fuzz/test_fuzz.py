"""Whatever bytes arrive: no crash, no loop, every byte accounted for, both ways of decoding agree, money to the digit.

`TAXIMETER_SEED=<printed seed>` repeats a run. tests/fuzz/coverage_guided.py lets atheris steer, where it is installed.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from decode_events import EVENT, NOW
from fuzz.messages import CONTENT_TYPES, SMALL, TOKENS, Mutator, judge, no_loop, seeds
from hypothesis_profile import examples
from taximeter_db.connect import booking_connection, connection
from taximeter_db.money import to_pico
from taximeter_db.prices.changes import set_price
from taximeter_db.prices.store import Price, Target
from taximeter_worker.consume.batch import Booker, Prices
from taximeter_worker.consume.brokers.source import Message
from taximeter_worker.decode.message import decode_message
from taximeter_worker.decode.result import Limits
from taximeter_worker.flags.writer import FlagWriter
from taximeter_worker.metrics import Metrics
from taximeter_worker.pricing.loading import load_book
from taximeter_worker.settings import Settings
from workers import Ledger

SHORT_INPUTS = 6_000
SOAK_INPUTS = 1_000_000
SHORT_MESSAGES = 1_500
SOAK_MESSAGES = 50_000
BATCH_MESSAGES = 50
HUGE = to_pico(10**9)

FRAGMENTS = st.one_of(st.sampled_from(seeds()), st.sampled_from(TOKENS), st.binary(max_size=20))


def the_seed() -> int:
    seed = int(os.environ.get("TAXIMETER_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
    print(f"TAXIMETER_SEED={seed}")
    return seed


def fuzz(inputs: int) -> Counter[str]:
    """Judge this number of inputs; returns what became of their events."""
    mutator, fate, slowest = Mutator(the_seed()), Counter(), 0.0
    with no_loop() as arm:
        for number in range(inputs):
            body, content_type = mutator.next()
            limits = Limits() if number % 8 == 0 else SMALL
            arm()
            before = time.process_time()
            try:
                decoded = judge(body, content_type, limits)
            except Exception as error:
                error.add_note(f"input {number}, content type {content_type!r}: {body!r}")
                raise
            slowest = max(slowest, time.process_time() - before)
            fate["usages"] += len(decoded.usages)
            fate["payments"] += len(decoded.payments)
            fate.update(rejected.reason for rejected in decoded.rejected)
    print(f"{inputs:,} inputs, slowest {slowest * 1000:.1f} ms of CPU time: {dict(fate.most_common())}")
    return fate


def test_mutated_messages_short():
    fate = fuzz(SHORT_INPUTS)
    assert fate["usages"] > SHORT_INPUTS / 10  # the mutations leave enough whole to be worth something
    assert len(fate) > 20


@pytest.mark.soak
def test_a_million_mutated_messages():
    fate = fuzz(SOAK_INPUTS)
    assert len(fate) > 25


@settings(max_examples=examples(400), deadline=None)
@given(st.lists(FRAGMENTS, max_size=6).map(b"".join), st.sampled_from(CONTENT_TYPES))
@example(b'["\\', None)
@example(b"]" * 3, CONTENT_TYPES[0])
def test_fragments_put_together(body: bytes, content_type: str | None):
    judge(body, content_type)


@pytest.mark.parametrize(
    "bomb",
    [
        b"[" * 3_000_000,
        b'{"a":' * 2_000_000,
        b'[{"' + b"\\" * 4_000_000,
        b'"' * 4_000_000,
        b"[" + b'"\\u0022",' * 500_000,
        b"[" + b"{}," * 1_000_000,
        b"-" + b"9" * 8_000_000,
        b"1e" + b"9" * 8_000_000,
        b'{"id":' + b" " * 8_000_000 + b"1}",
        b"[" + b"," * 8_000_000,
    ],
    ids=lambda bomb: repr(bomb[:6]),
)
@pytest.mark.parametrize("content_type", [CONTENT_TYPES[0], EVENT, None])
def test_bombs_go_off_quietly(bomb: bytes, content_type: str | None):
    with no_loop() as arm:
        arm()
        decoded = decode_message(bomb, content_type, now=NOW)
    assert not decoded.usages
    assert len(decoded.rejected) >= 1
    assert "internal_error" not in {rejected.reason for rejected in decoded.rejected}


# -- the whole way: decode, price, book -------------------------------------------------------------------------------


@pytest.fixture
def booker(database_url: str, redis_url: str) -> Booker:
    with connection(database_url) as conn:
        for unit in ("input_tokens", "seconds", "x:y"):
            set_price(
                conn, Price(target=Target("chat", None, None), unit=unit, amount=Decimal("1.7"), per=Decimal(10**10))
            )
    settings = Settings(database_url=database_url, broker_url="redis://none", redis_url=redis_url, metrics_port=0)
    prices = Prices()
    with booking_connection(database_url) as conn:
        prices.use(load_book(conn))
    return Booker(settings, prices, FlagWriter(redis_url, 1.0), Metrics())


def book_mutated(booker: Booker, database_url: str, messages: int) -> None:
    """Book mutated messages in batches, each batch twice; then the database must agree with a book kept by hand."""
    mutator, accepted, refused = Mutator(the_seed()), Counter(), 0
    fingerprints: dict[tuple[str, str], bytes] = {}
    balances: Counter[str] = Counter()
    paid: dict[tuple[str, str], bytes] = {}
    conn = booking_connection(database_url)
    for _ in range(messages // BATCH_MESSAGES):
        bodies = [mutator.next() for _ in range(BATCH_MESSAGES)]
        batch = [Message(body, content_type, "taximeter.payment", 0.0, may_pay=True) for body, content_type in bodies]
        # A few of these would fill a balance to its brim; what happens there is row 31 of the bad input.
        batch = [one for one in batch if all(p.amount < HUGE for p in booker.decode([one]).payments)]
        decoded = booker.decode(batch)
        refused += len(decoded.rejected)
        for payment in decoded.payments:
            key = payment.workspace_id, payment.payment_id
            if key not in paid:
                paid[key] = payment.fingerprint
                balances[payment.workspace_id] += payment.amount
        for usage in decoded.usages:
            key = usage.workspace_id, usage.event_id
            if key not in fingerprints:
                fingerprints[key] = usage.fingerprint
                balances[usage.workspace_id] -= usage.cost
                accepted["booked"] += 1
            elif fingerprints[key] == usage.fingerprint:
                accepted["duplicates"] += 1
            else:
                accepted["conflicts"] += 1
        booker.book(conn, booker.decode(batch))
        booker.book(conn, booker.decode(batch))
    conn.close()
    ledger = Ledger(database_url)
    print(f"{messages:,} messages: {dict(accepted)}, {len(paid)} payments, {refused} refused before booking")
    assert ledger.usages == accepted["booked"] > messages / 50
    assert accepted["duplicates"]
    assert accepted["conflicts"]
    assert ledger.one("SELECT count(*) FROM taximeter.payments") == len(paid)
    found = ledger._conn.execute("SELECT workspace_id, balance::text FROM taximeter.workspaces").fetchall()
    assert {name: to_pico(balance) for name, balance in found} == {name: balances[name] for name, _ in found}
    assert {name for name, balance in balances.items() if balance} <= {name for name, _ in found}
    assert "internal_error" not in ledger.quarantined()
    ledger.verify()
    ledger.close()


def test_mutated_messages_are_booked_exactly(booker: Booker, database_url: str):
    book_mutated(booker, database_url, SHORT_MESSAGES)


@pytest.mark.soak
def test_many_mutated_messages_are_booked_exactly(booker: Booker, database_url: str):
    book_mutated(booker, database_url, SOAK_MESSAGES)
