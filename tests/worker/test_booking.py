"""What becomes of good, repeated and bad events, on both brokers."""

from __future__ import annotations

import json

import pytest

from taximeter import names
from taximeter_cli.embedded.postgres import Postgres
from taximeter_worker.consume.brokers.source import Message
from taximeter_worker.runtime import Runtime
from waiting import eventually
from workers import Feed, Ledger, payment, set_prices, usage


def sample(runtime: Runtime, name: str, **labels: str) -> float:
    return runtime.metrics.registry.get_sample_value(name, labels) or 0.0


def test_many_small_messages_are_merged(new_runtime, feed, ledger, broker_url):
    feed.send_each([usage(f"w{number % 7}") for number in range(400)])
    runtime = new_runtime(broker_url)
    eventually(lambda: ledger.usages == 400)
    eventually(lambda: sample(runtime, "taximeter_held_messages") == 0)
    batches = sample(runtime, "taximeter_batch_events_count")
    assert batches < 100, "one transaction for each message would be 400"
    assert sample(runtime, "taximeter_events_total", kind="usage", outcome="booked") == 400
    assert sample(runtime, "taximeter_cost_usd_total") == pytest.approx(0.4)
    ledger.verify()


def test_duplicates_are_counted_and_conflicts_kept(runtime, feed, ledger):
    first = usage("acme", 1000)
    feed.send(first, first)
    feed.send({**first, "time": "2026-01-01T00:00:00Z"})  # a retry with a new time is the same event
    feed.send(usage("acme", 999, event_id=first["id"]), usage("other", 1000, event_id=first["id"]))
    eventually(lambda: ledger.quarantined() == {"id_conflict": 1})
    eventually(lambda: ledger.usages == 2)
    eventually(lambda: ledger.duplicates == 2)
    assert ledger.balance("acme") == ledger.balance("other") == "-0.001"


def test_one_bad_event_costs_its_neighbours_nothing(runtime, feed, ledger):
    events = [usage() for _ in range(100)]
    events[13]["data"]["quantities"] = {"input_tokens": -1}
    events[57]["data"]["model"] = "nobody-knows"
    del events[80]["subject"]
    feed.send(*events)
    eventually(lambda: ledger.usages == 97)
    assert ledger.quarantined() == {"negative_quantity": 1, "price_missing": 1, "workspace_required": 1}


BAD_BODIES = [
    (b"null", None),
    (b"[1]", None),
    (b"", None),
    (b"\x80\x04\x95", "application/x-python-serialize"),
    (b"\xff\xfe{\x00}\x00", names.CONTENT_TYPE_EVENT),
    (b"[" * 100_000, names.CONTENT_TYPE_BATCH),
    (b'{"body": "x", "properties": 3}', names.CONTENT_TYPE_EVENT),
    (json.dumps([["arg"], {}, {"callbacks": None, "chain": None}]).encode(), "application/json"),
]


def test_bodies_that_stop_other_consumers_are_only_kept(runtime, feed, ledger):
    for body, content_type in BAD_BODIES:
        feed.send_raw(body, content_type)
    for body, content_type in BAD_BODIES[:2]:
        feed.send_raw(body, content_type, names.PAYMENT_QUEUE)
    feed.send(usage())
    eventually(lambda: ledger.usages == 1)
    eventually(lambda: sum(ledger.quarantined().values()) >= len(BAD_BODIES))
    eventually(lambda: feed.waiting() == 0 and sample(runtime, "taximeter_held_messages") == 0, what="no loop")
    assert sum(ledger.quarantined().values()) == len(BAD_BODIES), "once each, however often it came"
    assert sample(runtime, "taximeter_broker_reconnects_total") == 0
    assert "undecodable" not in ledger.quarantined()
    assert "internal_error" not in ledger.quarantined()


def test_an_empty_batch_is_nothing(runtime, feed, ledger):
    feed.send()
    feed.send(usage())
    eventually(lambda: ledger.usages == 1)
    assert ledger.quarantined() == {}


def test_usage_may_come_as_payments_do_and_payments_not_as_usage(runtime, feed, ledger):
    feed.pay(usage("acme", 1000), payment("acme", "1"))
    feed.send(payment("acme", "7"), usage("acme", 1000))
    eventually(lambda: ledger.balance("acme") == "0.998")
    eventually(lambda: ledger.quarantined() == {"wrong_queue": 1})


def test_a_message_larger_than_a_batch_is_booked_in_parts(new_runtime, feed, ledger, broker_url):
    runtime = new_runtime(broker_url, batch_events_max=100)
    feed.send(*(usage(f"w{number % 3}") for number in range(950)))
    eventually(lambda: ledger.usages == 950)
    assert sample(runtime, "taximeter_batch_events_count") >= 10
    ledger.verify()


def test_unknown_workspaces_can_be_quarantined(new_runtime, feed, ledger, broker_url):
    new_runtime(broker_url, unknown_workspace="quarantine")
    feed.send(usage("stranger"), usage("stranger"))
    feed.pay(payment("stranger", "1"))
    eventually(lambda: ledger.quarantined() == {"unknown_workspace": 3})
    assert ledger.balance("stranger") is None


def test_what_the_broker_gave_up_on_is_kept_whole(new_runtime, ledger, valkey_broker_url, priced_url):
    from taximeter_db.connect import booking_connection

    runtime = new_runtime(valkey_broker_url)
    eventually(runtime.prices.loaded.is_set)
    body = json.dumps(usage()).encode()
    with booking_connection(priced_url) as conn:
        batch = runtime.booker.decode([Message(body, names.CONTENT_TYPE_EVENT, names.DEAD_QUEUE, 0.0, given_up=True)])
        runtime.booker.book(conn, batch)
    assert ledger.quarantined() == {"delivery_limit": 1}
    assert ledger.one("SELECT event FROM taximeter.quarantine") == body


def test_our_own_fault_parks_one_message_and_stops_nothing(new_runtime, feed, ledger, broker_url, monkeypatch):
    runtime = new_runtime(broker_url)
    decode = runtime.booker.decode

    def faulty(messages: list[Message]):
        if any(b"cursed" in message.body for message in messages):
            raise RuntimeError("a bug")
        return decode(messages)

    monkeypatch.setattr(runtime.booker, "decode", faulty)
    feed.send_each([usage(), usage("cursed"), usage()])
    eventually(lambda: ledger.usages == 2)
    eventually(lambda: ledger.quarantined() == {"internal_error": 1})


def test_a_full_column_is_no_loop(runtime, feed, ledger):
    feed.pay(payment("rich", "999999999999999"))
    feed.pay(payment("rich", "999999999999999"))
    feed.send(usage("rich", 1000), usage("acme", 1000))
    eventually(lambda: ledger.usages == 2)
    eventually(lambda: ledger.quarantined() == {"out_of_range": 1})


@pytest.fixture
def stopped_database(own_postgres) -> Postgres:
    from taximeter_db.migrate import upgrade

    server: Postgres = own_postgres()
    upgrade(server.url())
    set_prices(server.url())
    return server


def test_an_absent_database_is_waited_for(new_runtime, feed: Feed, broker_url, stopped_database):
    server = stopped_database
    runtime = new_runtime(broker_url, database_url=server.url())
    feed.send(usage("acme"))
    found = Ledger(server.url())
    eventually(lambda: found.usages == 1)
    found.close()
    server.stop("immediate")
    feed.send(usage("acme"), usage("acme"))
    eventually(lambda: sample(runtime, "taximeter_database_errors_total") >= 2)
    assert sample(runtime, "taximeter_oldest_unbooked_seconds") > 0
    server.start()
    found = Ledger(server.url())
    eventually(lambda: found.usages == 3)
    eventually(lambda: sample(runtime, "taximeter_held_messages") == 0)
    # Once more, and the worker ends meanwhile: what it could not book was not acknowledged, so it is in the broker.
    found.close()
    server.stop("immediate")
    errors = sample(runtime, "taximeter_database_errors_total")
    feed.send(usage("acme"))
    eventually(lambda: sample(runtime, "taximeter_database_errors_total") >= errors + 2)
    runtime.stop()
    eventually(lambda: feed.waiting() > 0, what="it is given back")
    server.start()
    new_runtime(broker_url, database_url=server.url())
    found = Ledger(server.url())
    eventually(lambda: found.usages == 4)
    found.verify()
    found.close()
