"""Valkey lists as a broker: order, acknowledgement, and what becomes of a consumer that dies or sleeps."""

from __future__ import annotations

import base64
import dataclasses
import json
import threading
from collections.abc import Callable, Iterator

import pytest
import redis
from kombu import Connection, Exchange

from taximeter import names
from taximeter_cli.embedded.valkey import BROKER_DATABASE, Valkey
from taximeter_worker.consume.brokers import redis as redis_source
from taximeter_worker.consume.brokers.kombu_envelope import unwrap
from taximeter_worker.consume.brokers.redis import RedisSource, alive_key
from taximeter_worker.consume.brokers.source import Message
from taximeter_worker.errors import SourceLostError
from taximeter_worker.settings import Settings
from waiting import eventually


@pytest.fixture
def settings(valkey: Valkey) -> Settings:
    return Settings(
        database_url="postgresql://nowhere", broker_url=valkey.url(BROKER_DATABASE), redis_url=valkey.url(0)
    )


@pytest.fixture
def client(settings: Settings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings.broker_url) as made:
        yield made


@pytest.fixture
def new_source(settings: Settings) -> Iterator[Callable[..., RedisSource]]:
    made: list[RedisSource] = []

    def make(**changes) -> RedisSource:
        made.append(RedisSource(dataclasses.replace(settings, **changes)))
        made[-1].open()
        return made[-1]

    yield make
    for source in made:
        source.close()


def push(client: redis.Redis, *bodies: str, queue: str = names.USAGE_QUEUE) -> None:
    for body in bodies:
        client.lpush(queue, body)


def bodies(source: RedisSource, timeout: float = 1.0) -> list[str]:
    return [message.body.decode() for message in source.poll(timeout)]


def test_messages_come_in_order_and_stay_until_acknowledged(client, new_source):
    source = new_source()
    push(client, "1", "2", "3")
    push(client, "p", queue=names.PAYMENT_QUEUE)
    assert bodies(source) == ["1", "2", "3", "p"]
    processing = f"taximeter.usage:processing:{source._id}"
    assert client.lrange(processing, 0, -1) == [b"3", b"2", b"1"]
    source.ack(2)
    assert client.lrange(processing, 0, -1) == [b"3"]
    source.ack(2)
    assert client.keys("*processing*") == []


def test_what_was_not_acknowledged_goes_back_in_the_old_order(client, new_source):
    source = new_source()
    push(client, "1", "2", "3")
    assert len(bodies(source)) == 3
    source.ack(1)
    push(client, "4")
    source.close()
    assert bodies(new_source()) == ["2", "3", "4"]
    assert client.hlen(names.CONSUMERS) == 1


def test_a_dead_consumer_is_relieved_of_its_messages(client, new_source):
    dead, living = new_source(), new_source()
    push(client, "1", "2")
    assert len(bodies(dead)) == 2
    living._beat()
    assert bodies(living, 0.0) == []
    client.delete(alive_key(dead._id))  # what its time to live would do
    living._beat_at = 0.0  # three seconds later
    assert bodies(living) == ["1", "2"]
    with pytest.raises(SourceLostError, match="silent for too long"):
        dead.ack(2)
    assert client.llen(f"taximeter.usage:processing:{living._id}") == 2
    dead.open()
    assert bodies(dead, 0.0) == []


def test_the_dead_are_looked_after_however_busy_the_living_are(client, new_source, monkeypatch):
    monkeypatch.setattr(redis_source, "BEAT_SECONDS", 0.2)
    dead, living = new_source(), new_source()
    push(client, "left behind")
    assert bodies(dead) == ["left behind"]
    client.delete(alive_key(dead._id))

    def taken() -> list[str]:
        push(client, "new")
        found = bodies(living, 0.05)
        living.ack(len(found))
        return found

    eventually(lambda: "left behind" in taken())


def test_a_consumer_that_was_declared_dead_takes_nothing(client, new_source):
    sleeper, other = new_source(), new_source()
    client.delete(alive_key(sleeper._id))
    other._beat()
    push(client, "1")
    with pytest.raises(SourceLostError, match="silent for too long"):
        sleeper.poll(0.0)
    assert bodies(other) == ["1"]


def test_a_waiting_poll_returns_with_the_first_message_or_a_wake(client, new_source):
    source = new_source()
    threading.Timer(0.2, push, (client, "1")).start()
    assert bodies(source, 3_600) == ["1"]
    threading.Timer(0.2, source.wake).start()
    assert bodies(source, 3_600) == []
    source.ack(1)
    assert client.llen(names.USAGE_QUEUE) == 0


def test_several_waiting_consumers_share_without_loss(client, new_source):
    sources = [new_source() for _ in range(3)]
    for source in sources:
        assert bodies(source, 0.0) == []  # now all wait on the server
    push(client, *map(str, range(50)))
    got: list[str] = []
    for _ in range(20):
        for source in sources:
            taken = bodies(source, 0.01)
            source.ack(len(taken))
            got += taken
    assert sorted(map(int, got)) == list(range(50))
    assert client.keys("taximeter.*") == []


def test_held_bytes_are_bounded(client, new_source):
    source = new_source(held_bytes_max=1024, batch_bytes_max=1024)
    push(client, *(["x" * 400] * 6))
    assert len(bodies(source)) == 3
    assert bodies(source, 0.0) == []
    source.ack(2)
    assert len(bodies(source, 0.0)) == 2


def test_a_pause_takes_no_more(client, new_source):
    source = new_source()
    push(client, "1")
    source.pause()
    assert bodies(source, 0.0) == []
    assert client.llen(names.USAGE_QUEUE) == 1


def test_a_lost_connection_is_reported_and_opened_again(client, new_source):
    source = new_source()
    push(client, "1")
    assert bodies(source) == ["1"]
    client.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(SourceLostError):
        source.ack(1)
    source.open()
    assert source.generation == 2
    assert bodies(source) == ["1"]


EVENT = json.dumps({"specversion": "1.0", "id": "1"}).encode()


@pytest.mark.parametrize(
    "item",
    [
        EVENT,
        b" \n[" + EVENT + b"]",
        b"[1]",
        b"null",
        b"",
        b"\xff\xfe{",
        b'{"body": 1}',
        b'{"body": "?", "properties": {"body_encoding": "base64"}}',
        b"{" * 100_000,
    ],
)
def test_a_bare_item_is_the_body(item):
    assert unwrap(item) == (item, None, None)


@pytest.mark.parametrize("encoding", ["base64", None])
def test_the_envelope_of_kombu_is_opened(encoding):
    body = base64.b64encode(EVENT).decode() if encoding else EVENT.decode()
    envelope = {
        "body": body,
        "content-encoding": "utf-8",
        "content-type": names.CONTENT_TYPE_EVENT,
        "headers": {},
        "properties": {"delivery_mode": 2, "body_encoding": encoding, "delivery_tag": "t"},
    }
    assert unwrap(json.dumps(envelope).encode()) == (EVENT, names.CONTENT_TYPE_EVENT, None)


def test_a_producer_that_uses_kombu_is_understood(new_source, settings):
    source = new_source()
    with Connection(settings.broker_kombu_url) as connection:
        producer = connection.Producer(serializer="json")
        exchange = Exchange(names.EXCHANGE, "topic")
        for key in (names.USAGE_ROUTING_KEY, names.PAYMENT_ROUTING_KEY):
            producer.publish({"specversion": "1.0"}, exchange=exchange, routing_key=key, declare=[exchange])
    got = source.poll(5)
    assert [(message.queue, json.loads(message.body)) for message in got] == [
        (queue, {"specversion": "1.0"}) for queue in redis_source.UNSHARDED_QUEUES
    ]


def test_a_full_memory_is_drained_and_waited_with(own_valkey: Callable[..., Valkey], new_source):
    """Nothing else makes room: whoever takes and acknowledges must not be refused as whoever pushes is."""
    server = own_valkey()
    with server.client(BROKER_DATABASE) as client:
        push(client, *map(str, range(5)))
        client.config_set("maxmemory", "1")
        with pytest.raises(redis.OutOfMemoryError):
            client.lpush(names.USAGE_QUEUE, "more")
        source = new_source(broker_url=server.url(BROKER_DATABASE))
        assert bodies(source) == ["0", "1", "2", "3", "4"]
        source.open()  # gives them back and registers again
        assert bodies(source) == ["0", "1", "2", "3", "4"]
        source.ack(5)
        source._beat_at = 0.0
        for _ in range(4):
            assert source.poll(5.0) == []
        # Refused to wait, it looks now and then: it does not ask as fast as it is answered.
        assert client.info("commandstats")["cmdstat_blmove"]["calls"] <= 4 * len(source._queues)
        client.config_set("maxmemory", "0")
        push(client, "5")
        got: list[str] = []
        while not got:
            got = bodies(source)
        assert got == ["5"]


def test_a_server_that_knows_no_flags_of_scripts_is_served_without(new_source, client, monkeypatch):
    """As Redis 6, which cannot compile them."""
    monkeypatch.setattr(redis_source, "EVEN_WHEN_FULL", "#!none\n")
    source = new_source()
    push(client, "1")
    assert bodies(source) == ["1"]
    source.ack(1)


def test_a_worker_takes_from_more_queues_than_a_pool_has_connections(client, new_source):
    source = new_source(shards=128)
    first, last = names.queue_of(names.usage_routing_keys(128)[0]), names.queue_of(names.usage_routing_keys(128)[127])
    push(client, "1", queue=first)
    push(client, "2", queue=last)
    assert sorted(bodies(source) + bodies(source, 0.0)) == ["1", "2"]


@pytest.mark.parametrize("levels", [20, 500, 900, 950, 980, 1_000, 5_000])
def test_headers_of_any_depth_can_be_kept_with_an_entry(levels):
    nested = f'{"{"}"x":{"[" * levels}{"]" * levels}{"}"}'
    item = f'{"{"}"body":"e30=","properties":{"{"}"body_encoding":"base64"{"}"},"headers":{nested}{"}"}'.encode()
    unwrapped = unwrap(item)
    message = Message(unwrapped.body, None, names.USAGE_QUEUE, 0.0, properties=unwrapped.properties)
    assert unwrapped.body in {b"{}", item}
    assert len(message.rejected("bad_json", "No.").properties or "") < 1_000
