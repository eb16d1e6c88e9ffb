"""A consumer that is alive, connected and deaf is seen: by the canary's age, within a minute."""

from __future__ import annotations

import threading
import time

import pytest

from taximeter_worker.canary import Canary, canary_body
from taximeter_worker.metrics import Metrics
from taximeter_worker.sources import amqp as amqp_source
from workers import Feed, eventually, usage

SECONDS = 0.3


def age(runtime) -> float:
    return runtime.metrics.registry.get_sample_value("taximeter_canary_age_seconds")


def test_canaries_come_through_and_leave_nothing_behind(new_runtime, broker_url, ledger):
    runtime = new_runtime(broker_url, canary_seconds=SECONDS)
    eventually(lambda: runtime.metrics.registry.get_sample_value("taximeter_canary_trip_seconds") > 0)
    feed = Feed(broker_url)
    feed.send(usage("acme"))
    eventually(lambda: ledger.usages == 1)
    eventually(lambda: feed.waiting() == 0)
    assert ledger.quarantined() == {}
    assert ledger.one("SELECT count(*) FROM taximeter.workspaces") == 1
    feed.close()


def test_a_deaf_consumer_is_seen(new_runtime, amqp_url, ledger, monkeypatch):
    """Cancelled behind its back after a reconnect: connected, heartbeats and all, and it gets nothing."""
    monkeypatch.setattr(amqp_source, "CHECK_SECONDS", 3600.0)  # its own look at the queue would mend it: another guard
    runtime = new_runtime(amqp_url, canary_seconds=SECONDS)
    eventually(lambda: runtime.metrics.registry.get_sample_value("taximeter_canary_trip_seconds") > 0)
    source = runtime._consumer._source
    source._channel.connection.transport.sock.shutdown(2)
    eventually(lambda: runtime.metrics.registry.get_sample_value("taximeter_broker_reconnects_total") == 1)
    eventually(lambda: runtime.metrics.registry.get_sample_value("taximeter_broker_connected") == 1)
    monkeypatch.setattr(source, "_drain", lambda: None)  # deaf from now on
    eventually(lambda: age(runtime) > 10 * SECONDS)
    assert runtime.metrics.registry.get_sample_value("taximeter_broker_connected") == 1
    assert runtime.metrics.registry.get_sample_value("taximeter_oldest_unbooked_seconds") == 0, "nothing else tells"
    monkeypatch.undo()
    source.wake()
    eventually(lambda: age(runtime) < 2 * SECONDS)


def test_a_worker_that_is_deaf_from_its_start_is_seen(new_runtime, amqp_url, monkeypatch):
    """No canary ever came, so there is nothing whose age could grow but the worker's own."""

    def hear_nothing(_source, _timeout_seconds):
        time.sleep(0.05)
        return []

    monkeypatch.setattr(amqp_source.AmqpSource, "poll", hear_nothing)
    runtime = new_runtime(amqp_url, canary_seconds=SECONDS)
    eventually(lambda: runtime.metrics.registry.get_sample_value("taximeter_broker_connected") == 1)
    eventually(lambda: age(runtime) > 10 * SECONDS, 20)
    assert runtime.metrics.registry.get_sample_value("taximeter_canary_trip_seconds") == 0, "none came through"


@pytest.mark.parametrize(
    "body",
    [
        canary_body(1)[:-1],
        canary_body(1).replace(b'"1"', b'"x"'),
        canary_body(1) + b" ",
        b'[{"specversion":"1.0","type":"taximeter.canary.v1","id":"1","data":{"tool":"x"}}]',
        b"",
    ],
)
def test_what_only_looks_like_a_canary_is_a_message(body):
    metrics = Metrics()
    assert not Canary("redis://nowhere", 10, metrics).is_one(body)
    assert Canary("redis://nowhere", 10, metrics).is_one(canary_body(1))


def test_no_canary_is_sent_if_none_is_wanted():
    before = threading.active_count()
    canary = Canary("redis://127.0.0.1:1", 0, Metrics())
    canary.start()
    assert threading.active_count() == before
    canary.stop()
