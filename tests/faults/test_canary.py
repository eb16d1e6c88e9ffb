"""A consumer that is alive, connected and deaf is seen: by the canary's age, within a minute."""

from __future__ import annotations

import threading

import pytest

from taximeter import names
from taximeter_worker.consume.brokers import rabbitmq as amqp_source
from taximeter_worker.consume.brokers.source import CANARY_QUEUE
from taximeter_worker.consume.canary import Canary, canary_body
from taximeter_worker.metrics import Metrics
from taximeter_worker.server_clock import ServerClock
from waiting import eventually
from workers import Feed, usage

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
    monkeypatch.setattr(
        amqp_source, "CHECK_SECONDS", 3600.0
    )  # its own check of the queue would repair it: another guard
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

    def hear_nothing(_source, timeout_seconds):
        threading.Event().wait(min(timeout_seconds, 0.05))
        return []

    monkeypatch.setattr(amqp_source.RabbitmqSource, "poll", hear_nothing)
    runtime = new_runtime(amqp_url, canary_seconds=SECONDS)
    eventually(lambda: runtime.metrics.registry.get_sample_value("taximeter_broker_connected") == 1)
    eventually(lambda: age(runtime) > 10 * SECONDS, 20)
    assert runtime.metrics.registry.get_sample_value("taximeter_canary_trip_seconds") == 0, "none came through"


def test_each_of_two_workers_hears_its_own_canaries(new_runtime, broker_url, monkeypatch):
    """One takes every canary that goes the way of usage: the other is well, and must not look deaf."""
    greedy, other = (new_runtime(broker_url, canary_seconds=SECONDS) for _ in range(2))
    for runtime in (greedy, other):
        eventually(lambda runtime=runtime: runtime.metrics.registry.get_sample_value("taximeter_broker_connected") == 1)
    is_one, own = other.canary.is_one, []

    def lose_those_of_usage(body: bytes, queue: str) -> bool:
        if queue != CANARY_QUEUE:
            return True
        own.append(queue)
        return is_one(body, queue)

    monkeypatch.setattr(other.booker, "_is_canary", lose_those_of_usage)
    eventually(lambda: len(own) >= 20, what="its own keep coming")
    eventually(lambda: age(other) < 2 * SECONDS)
    greedy.stop()
    other.stop()
    feed = Feed(broker_url)
    if feed._redis is not None:
        assert list(feed._redis.scan_iter(match="taximeter.canary.*")) == []
    feed.close()


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
    canary = Canary("redis://nowhere", 10, metrics, ServerClock())
    assert not canary.is_one(body, names.USAGE_QUEUE)
    assert canary.is_one(canary_body(1), names.USAGE_QUEUE)


def test_canaries_go_to_the_node_that_answers(new_runtime, amqp_url):
    """The first node of the address is down: the next attempt begins with the other one, and so does each after it."""
    runtime = new_runtime(f"amqp://guest:guest@127.0.0.1:1//;{amqp_url}", canary_seconds=SECONDS)
    eventually(lambda: runtime.metrics.registry.get_sample_value("taximeter_canary_trip_seconds") > 0)


def test_no_canary_is_sent_if_none_is_wanted():
    before = threading.active_count()
    canary = Canary("redis://127.0.0.1:1", 0, Metrics(), ServerClock())
    canary.start()
    assert threading.active_count() == before
    canary.stop()
