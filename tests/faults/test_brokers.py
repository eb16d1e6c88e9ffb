"""Brokers die with messages in flight, raise alarms, lose replies, time out; and what the weaker tier does not promise."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
import redis

from proxy import Proxy
from servers.rabbitmq import RabbitMQ
from taximeter import FlushTimeoutError, Meter, names
from taximeter_cli.embedded.valkey import BROKER_DATABASE, Valkey
from taximeter_worker.consume.brokers import dead_queues
from taximeter_worker.consume.brokers import rabbitmq as amqp_source
from waiting import eventually
from workers import Feed, payment, usage


def through(url: str) -> Proxy:
    parts = urlsplit(url)
    return Proxy(parts.hostname or "", parts.port or 0)


@pytest.fixture
def database(priced_url: str) -> Iterator[Proxy]:
    with through(priced_url) as running:
        yield running


def sample(runtime, name: str) -> float:
    return runtime.metrics.registry.get_sample_value(name) or 0.0


def test_rabbitmq_through_a_kill_with_messages_in_flight_and_a_full_disk(
    own_rabbitmq: Callable[[], RabbitMQ], new_runtime, database, priced_url, ledger, tmp_path
):
    """One node for two rows, because each start takes seconds."""
    node = own_rabbitmq()
    runtime = new_runtime(node.url(), database_url=database.url(priced_url))
    feed = Feed(node.url())
    feed.send(usage("acme"))
    eventually(lambda: ledger.usages == 1)
    _kill_with_messages_in_flight(node, runtime, database, feed, ledger)
    _fill_the_brokers_disk(node, ledger, tmp_path)
    ledger.verify()


def test_rabbitmq_loses_patience_with_a_consumer(own_rabbitmq, new_runtime, database, priced_url, ledger):
    """A batch stays far below the 30 minutes after which RabbitMQ closes the channel. When it does not: one effect."""
    node = own_rabbitmq()
    # The limits are read when a channel opens.
    limits = (("consumer_timeout", 2000), ("channel_tick_interval", 1000))
    node.ctl("eval", ", ".join(f"application:set_env(rabbit, {name}, {value})" for name, value in limits) + ".")
    runtime = new_runtime(node.url(), database_url=database.url(priced_url))
    eventually(lambda: sample(runtime, "taximeter_broker_connected") == 1)
    feed = Feed(node.url())
    database.stall()
    feed.send(*(usage("acme") for _ in range(5)))
    eventually(lambda: sample(runtime, "taximeter_broker_reconnects_total") > 0)
    database.resume()
    eventually(lambda: ledger.usages == 5)
    eventually(lambda: feed.waiting() == 0 and sample(runtime, "taximeter_held_messages") == 0)
    feed.close()
    ledger.verify()


def _kill_with_messages_in_flight(node, runtime, database, feed, ledger) -> None:
    node.let_queues_settle()
    database.stall()
    for _ in range(20):
        feed.send(*(usage("acme") for _ in range(5)))
    # A canary may be among them.
    eventually(lambda: sample(runtime, "taximeter_held_messages") >= 20, what="all are taken, none is acknowledged")
    node.kill()
    feed.close()
    node.start()
    database.resume()
    eventually(lambda: ledger.usages == 101)
    eventually(lambda: sample(runtime, "taximeter_broker_connected") == 1)
    eventually(lambda: ledger.duplicates > 0, what="what was being booked came again")
    eventually(lambda: sample(runtime, "taximeter_held_messages") == 0)


def _fill_the_brokers_disk(node, ledger, tmp_path) -> None:
    meter = Meter(broker_url=node.url(), spool=tmp_path / "spool")
    node.ctl("set_disk_free_limit", "9000GB")
    for _ in range(50):
        meter.record("acme", tool="chat", provider="p", model="m", quantities={"input_tokens": 1000})
    with pytest.raises(FlushTimeoutError, match="50 events"):
        meter.flush(1)
    node.ctl("set_disk_free_limit", "50MB")
    meter.flush(60)
    meter.close()
    eventually(lambda: ledger.usages == 151)


def test_valkey_killed_with_messages_in_flight(
    own_valkey: Callable[..., Valkey], new_runtime, database, priced_url, ledger
):
    server = own_valkey({"appendonly": "yes", "appendfsync": "always"})
    runtime = new_runtime(server.url(BROKER_DATABASE), database_url=database.url(priced_url))
    feed = Feed(server.url(BROKER_DATABASE))
    feed.send(usage("acme"))
    eventually(lambda: ledger.usages == 1)
    database.stall()
    for _ in range(20):
        feed.send(*(usage("acme") for _ in range(5)))
    eventually(lambda: feed.waiting() == 0 and feed.unacknowledged() == 20)
    server.kill()
    server.start()
    database.resume()
    eventually(lambda: ledger.usages == 101)
    again = Feed(server.url(BROKER_DATABASE))
    eventually(lambda: again.waiting() == again.unacknowledged() == 0)
    assert sample(runtime, "taximeter_broker_reconnects_total") >= 1
    feed.close()
    again.close()


def test_a_dead_queue_is_left_out_until_it_is_back(own_rabbitmq, new_runtime, ledger, monkeypatch):
    """Its only replica is gone, as after a lost disk: usage is booked all the same, and payments once it is declared again."""
    monkeypatch.setattr(dead_queues, "LEFT_OUT_SECONDS", 3.0)
    monkeypatch.setattr(amqp_source, "CHECK_SECONDS", 1.0)
    node = own_rabbitmq()
    runtime, feed = new_runtime(node.url()), Feed(node.url())

    def down() -> float | None:
        return runtime.metrics.registry.get_sample_value("taximeter_queue_down", {"queue": names.PAYMENT_QUEUE})

    feed.send(usage("acme"))
    eventually(lambda: ledger.usages == 1)
    lookup = f'rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{names.PAYMENT_QUEUE}">>))'
    node.ctl("eval", f"{{ok, Queue}} = {lookup}, ok = ra:stop_server(quorum_queues, amqqueue:get_pid(Queue)).")
    runtime._consumer._source._lost = "cut by the test: a consumer that has it already hears nothing"
    eventually(lambda: down() == 1)
    for number in range(2, 6):
        feed.send(usage("acme"))
        eventually(lambda number=number: ledger.usages == number)
    node.api("DELETE", f"queues/%2F/{names.PAYMENT_QUEUE}")
    eventually(lambda: down() == 0)
    feed.pay(payment("acme", "1"))
    eventually(lambda: ledger.balance("acme") == "0.995")
    feed.close()
    ledger.verify()


def test_a_lost_delivery_comes_again(new_runtime, broker_url, ledger, feed):
    """The reply that holds the messages is lost on the way: the broker thinks that they were taken, and nobody has them."""
    with through(broker_url) as proxy:
        runtime = new_runtime(proxy.url(broker_url), canary_seconds=0)
        feed.send(usage("acme"))
        eventually(lambda: ledger.usages == 1)
        # On Valkey the message is in two replies. One only says that something is there; this is how the one that takes begins:
        # two queues, a message in the first.
        taking = b"specversion" if broker_url.startswith("amqp") else b"*2\r\n*1\r\n$"
        for number in range(1, 4):
            lost = proxy.drop_reply(taking)
            feed.send(*(usage("acme") for _ in range(10)))
            assert lost.wait(30)
            eventually(lambda number=number: ledger.usages == 1 + 10 * number)
        eventually(lambda: feed.waiting() == 0 and sample(runtime, "taximeter_held_messages") == 0)
        assert sample(runtime, "taximeter_broker_reconnects_total") >= 3


def test_a_valkey_that_keeps_nothing_loses_what_it_confirmed(
    own_valkey: Callable[..., Valkey], new_runtime, ledger, tmp_path
):
    """What the weaker tier does not promise, shown: a confirm is worth as much as the server's persistence.

    With ``appendonly no`` (the server's own default) a killed broker forgets what it had confirmed, and the spool has let
    go of it. Nothing afterwards can tell: balances are the sum of the log, which is short of those events.
    """
    server = own_valkey({"appendonly": "no", "save": '""'})
    meter = Meter(broker_url=server.url(BROKER_DATABASE), spool=tmp_path / "spool")
    for _ in range(30):
        meter.record("acme", tool="chat", provider="p", model="m", quantities={"input_tokens": 1000})
    meter.flush(20)
    server.kill()
    server.start()
    # Recorded after the restart, and safe in the spool meanwhile: only what was confirmed and not yet booked is lost.
    for _ in range(5):
        meter.record("acme", tool="chat", provider="p", model="m", quantities={"input_tokens": 1000})
    with contextlib.suppress(FlushTimeoutError):
        meter.flush(20)
    runtime = new_runtime(server.url(BROKER_DATABASE))
    meter.flush(60)
    eventually(lambda: ledger.usages == 5)
    with redis.Redis.from_url(server.url(BROKER_DATABASE)) as client:
        assert client.llen(names.USAGE_QUEUE) == 0
    eventually(lambda: sample(runtime, "taximeter_held_messages") == 0)
    assert ledger.balance("acme") == "-0.005", "thirty of thirty-five events are gone"
    ledger.verify()
    meter.close()


def test_a_valkey_that_writes_before_it_answers_loses_nothing(
    own_valkey: Callable[..., Valkey], new_runtime, ledger, tmp_path
):
    """The same with the settings that `taximeter up` and docs/deployment.md use."""
    server = own_valkey({"appendonly": "yes", "appendfsync": "always"})
    meter = Meter(broker_url=server.url(BROKER_DATABASE), spool=tmp_path / "spool")
    for _ in range(30):
        meter.record("acme", tool="chat", provider="p", model="m", quantities={"input_tokens": 1000})
    meter.flush(20)
    server.kill()
    server.start()
    new_runtime(server.url(BROKER_DATABASE))
    eventually(lambda: ledger.usages == 30)
    meter.close()
