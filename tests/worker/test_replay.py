"""Quarantined events that can be booked after all: by a price, by a correction, exactly once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from taximeter_cli.embedded.valkey import BROKER_DATABASE
from taximeter_db import quarantine
from taximeter_db.connect import booking_connection
from taximeter_db.errors import NotFoundError
from taximeter_worker.pricing import load_book
from taximeter_worker.replay import replay, replay_price_missing
from workers import Feed, Ledger, eventually, set_prices, usage


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
    [one] = replay(conn, waiting[:1], by="me")
    assert one.result == "booked"
    assert [state.workspace_id for state in one.states] == ["acme"]
    with pytest.raises(NotFoundError, match="resolved before"):
        replay(conn, waiting[:1])
    published: list = []
    assert replay_price_missing(conn, published.extend, book=load_book(conn)) == 2
    assert [state.balance for state in published] == [-3_000_000_000]
    assert replay_price_missing(conn, published.extend, book=load_book(conn)) == 0
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
    [one] = replay(conn, [entry.id], json.dumps(event).encode())
    assert one.result == "booked"
    assert ledger.balance("acme") == "-0.005"
    assert quarantine.get(conn, entry.id).event == entry.event
    with pytest.raises(ValueError, match="exactly one"):
        replay(conn, [1, 2], b"{}")


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
