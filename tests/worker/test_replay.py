"""Quarantined events that can be booked after all: by a price, by a correction, exactly once."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from taximeter_cli.embedded.valkey import BROKER_DATABASE
from taximeter_db import quarantine
from taximeter_db.connect import booking_connection
from taximeter_db.errors import NotFoundError
from taximeter_db.ledger import booking
from taximeter_db.quarantine import Attempt
from taximeter_worker.consume.batch import price
from taximeter_worker.decode.message import decode_message
from taximeter_worker.decode.result import Limits
from taximeter_worker.errors import CorrectionError
from taximeter_worker.pricing.loading import load_book
from taximeter_worker.tasks import replay as replaying
from taximeter_worker.tasks.replay import replay, replay_waiting
from waiting import eventually
from workers import Feed, Ledger, set_prices, usage


@pytest.fixture
def conn(priced_url: str) -> Iterator[object]:
    made = booking_connection(priced_url)
    yield made
    made.close()


@pytest.fixture
def quarantined(new_runtime, ledger: Ledger, valkey_broker_url: str, conn) -> list[quarantine.Entry]:
    """Three events without a price, one with a negative quantity."""
    new_runtime(valkey_broker_url)
    feed = Feed(valkey_broker_url)
    bad = usage("acme", -5)
    feed.send(*(usage("acme", 1000, model="new") for _ in range(3)), bad)
    feed.close()
    eventually(lambda: ledger.quarantined() == {"price_missing": 3, "negative_quantity": 1})
    return quarantine.find(conn)


def test_without_a_price_nothing_changes(conn, quarantined, ledger):
    done = replay(conn, [entry.id for entry in quarantined])
    assert sorted((one.result, one.reason) for one in done) == [
        ("kept", "negative_quantity"),
        *[("kept", "price_missing")] * 3,
    ]
    assert ledger.quarantined() == {"price_missing": 3, "negative_quantity": 1}
    assert len(quarantine.find(conn, resolved=True)) == 4


def test_with_a_price_each_is_booked_once(conn, quarantined, ledger, priced_url):
    set_prices(priced_url, "new")
    waiting = [entry.id for entry in quarantined if entry.reason == "price_missing"]
    [one] = replay(conn, waiting[:1], Attempt("me"))
    assert one.result == "booked"
    assert [state.workspace_id for state in one.states] == ["acme"]
    with pytest.raises(NotFoundError, match="resolved before"):
        replay(conn, waiting[:1])
    published: list = []
    assert replay_waiting(conn, lambda states, _: published.extend(states), book=load_book(conn)) == 2
    assert [state.balance for state in published] == [-3_000_000_000]
    assert replay_waiting(conn, lambda states, _: published.extend(states), book=load_book(conn)) == 0
    assert (ledger.usages, ledger.balance("acme"), ledger.quarantined()) == (3, "-0.003", {"negative_quantity": 1})
    assert quarantine.get(conn, waiting[0]).resolved_by == "me"
    ledger.verify()


def test_several_at_once_book_once(quarantined, ledger, priced_url):
    set_prices(priced_url, "new")
    waiting = [entry.id for entry in quarantined if entry.reason == "price_missing"]

    def attempt(_: int) -> int:
        with booking_connection(priced_url) as mine:
            try:
                return sum(one.result == "booked" for one in replay(mine, waiting))
            except NotFoundError:
                return 0

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(attempt, range(4)))
    eventually(lambda: ledger.quarantined() == {"negative_quantity": 1} or attempt(0) is None)
    assert (ledger.usages, ledger.duplicates) == (3, 0)
    ledger.verify()


def test_a_corrected_event_is_booked_in_its_place(conn, quarantined, ledger):
    [entry] = [entry for entry in quarantined if entry.reason == "negative_quantity"]
    event = json.loads(entry.event)
    event["data"]["quantities"] = {"input_tokens": 5000}
    [one] = replay(conn, [entry.id], Attempt("replay", correction=json.dumps(event).encode()))
    assert one.result == "booked"
    assert ledger.balance("acme") == "-0.005"
    assert quarantine.get(conn, entry.id).event == entry.event
    with pytest.raises(CorrectionError, match="exactly one"):
        replay(conn, [1, 2], Attempt("replay", correction=b"{}"))


def test_an_event_that_was_booked_meanwhile_is_a_duplicate(conn, quarantined, ledger, priced_url, valkey_broker_url):
    [entry] = [entry for entry in quarantined if entry.reason == "price_missing"][:1]
    set_prices(priced_url, "new")
    feed = Feed(valkey_broker_url)

    def resent() -> bool:
        feed.send(json.loads(entry.event))
        return ledger.usages == 1

    eventually(resent)
    feed.close()
    [one] = replay(conn, [entry.id])
    assert one.result == "duplicate"
    assert ledger.usages == 1


def test_a_worker_does_it_by_itself_when_a_price_is_set(new_worker, priced_url, valkey, ledger, redis_client):
    url = valkey.url(BROKER_DATABASE)
    worker = new_worker(priced_url, url, valkey.url(0)).start()
    feed = Feed(url)
    feed.send(*(usage("acme", 100_000, model="new") for _ in range(3)))
    eventually(lambda: ledger.quarantined() == {"price_missing": 3})
    set_prices(priced_url, "new")
    eventually(lambda: ledger.usages == 3)
    eventually(lambda: redis_client.hget("taximeter:flag:{acme}", "enabled") == "0")
    feed.send(usage("acme", 1000, model="new"))
    eventually(lambda: ledger.balance("acme") == "-0.301")
    assert worker.stop() == 0
    ledger.verify()
    feed.close()


def _park(conn, count: int, model: str, filler: int = 0) -> None:
    """Quarantine usages of a model without a price, as a worker does."""
    events = [usage("acme", 1000, model=model, input="x" * filler) for _ in range(count)]
    for event in events:
        decoded = decode_message(json.dumps(event).encode(), None, now=time.time_ns() // 1000, limits=Limits())
        rejected = list(decoded.rejected)
        assert price(load_book(conn), decoded.usages, rejected) == []
        booking.book(conn, [], [], rejected)


def test_only_what_the_book_prices_now_is_read(conn, priced_url, monkeypatch):
    _park(conn, 5, "waits")
    _park(conn, 2, "new")
    set_prices(priced_url, "new")
    read: list[int] = []
    decode = replaying._decode_entry

    def spy(entry, *more):
        read.append(entry.id)
        return decode(entry, *more)

    monkeypatch.setattr(replaying, "_decode_entry", spy)
    assert replay_waiting(conn, lambda *_: None, book=load_book(conn)) == 2
    assert len(read) == 2
    assert quarantine.open_counts(conn) == {"price_missing": 5}


def test_what_waits_is_read_in_pages_of_bytes(conn, priced_url):
    """However much waits, a worker holds a page of it: here 48 MiB, of which all have a price now."""
    _park(conn, 48, "new", filler=1_000_000)
    set_prices(priced_url, "new")
    book = load_book(conn)
    sizes = [sum(len(entry.event) for entry in page) for page in quarantine.pages(conn, reason="price_missing")]
    assert max(sizes) <= quarantine.PAGE_BYTES_MAX
    assert sum(sizes) > 48_000_000
    tracemalloc.start()
    try:
        assert replay_waiting(conn, lambda *_: None, book=book) == 48
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * quarantine.PAGE_BYTES_MAX
