"""RabbitMQ as a source: topology, acknowledgement in runs, prefetch, and messages the broker gave up on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import amqp
import pytest
from kombu import Connection

from proxy import Proxy
from taximeter import names
from taximeter_worker.consume.brokers import rabbitmq as amqp_source
from taximeter_worker.consume.brokers.rabbitmq import RabbitmqSource
from taximeter_worker.consume.brokers.source import Message
from taximeter_worker.errors import SourceLostError
from taximeter_worker.settings import Settings
from waiting import eventually
from workers import Feed


@pytest.fixture
def settings(amqp_url: str) -> Settings:
    return Settings(database_url="postgresql://nowhere", broker_url=amqp_url, redis_url="redis://nowhere")


@pytest.fixture
def new_source(settings: Settings) -> Iterator[Callable[..., RabbitmqSource]]:
    made: list[RabbitmqSource] = []

    def make(**changes) -> RabbitmqSource:
        made.append(RabbitmqSource(dataclasses.replace(settings, **changes)))
        made[-1].open()
        return made[-1]

    yield make
    for source in made:
        source.close()


@pytest.fixture
def feed(amqp_url: str) -> Iterator[Feed]:
    made = Feed(amqp_url)
    yield made
    made.close()


def take(source: RabbitmqSource, count: int) -> list[Message]:
    got: list[Message] = []

    def enough() -> bool:
        got.extend(source.poll(0.1))
        return len(got) >= count

    eventually(enough)
    return got


def test_messages_come_in_order_and_again_until_acknowledged(new_source, feed):
    source = new_source()
    for number in range(5):
        feed.send_raw(str(number).encode(), names.CONTENT_TYPE_EVENT)
    got = take(source, 5)
    assert [message.body for message in got] == [b"0", b"1", b"2", b"3", b"4"]
    assert {message.content_type for message in got} == {names.CONTENT_TYPE_EVENT}
    source.ack(2)
    source.ack(1)
    source.open()
    assert source.generation == 2
    again = take(source, 2)
    assert sorted(message.body for message in again) == [b"3", b"4"]
    source.ack(2)
    source.close()
    eventually(lambda: feed.waiting() == 0)


def test_empty_large_and_untyped_bodies(new_source, feed):
    source = new_source()
    large = bytes(range(256)) * 8000
    for body in (b"", large, b"x"):
        feed.send_raw(body, None)
    assert [(message.body, message.content_type) for message in take(source, 3)] == [
        (b"", None),
        (large, None),
        (b"x", None),
    ]


def test_prefetch_follows_the_size_of_the_messages(new_source, feed):
    source = new_source(held_bytes_max=4_000_000)
    for _ in range(200):
        feed.send_raw(b"x" * 50, None)
    got = take(source, 200)
    assert len(got) == 200
    assert source._prefetch == amqp_source.PREFETCH_MAX
    source.ack(200)
    for _ in range(100):
        feed.send_raw(b"y" * 50_000, None)
    seen = 0
    while seen < 100:
        seen += len(batch := take(source, 1))
        source.ack(len(batch))
    # The aim is half of what may be held; it is left alone within a factor of two, and the average lags a little.
    # What it must never invite is twice as much as may be held: that is where everything is given back.
    assert source._prefetch * 50_000 <= 2 * 4_000_000


def test_more_bytes_than_may_be_held_are_given_back(new_source, feed, monkeypatch):
    # On a slow connection the prefetch would adapt before it comes to this, which is the better end.
    monkeypatch.setattr(amqp_source, "PREFETCH_MIN", 1_000)
    source = new_source(held_bytes_max=100_000)
    for _ in range(40):
        feed.send_raw(b"x" * 10_000, None)
    with pytest.raises(SourceLostError, match="too much to hold"):
        take(source, 40)
    seen = 0
    while seen < 40:
        try:
            seen += len(batch := take(source, 1))
            source.ack(len(batch))
        except SourceLostError:
            source.open()
    assert seen == 40


def test_what_the_broker_gave_up_on_arrives_marked(new_source, feed, amqp_url):
    source = new_source()
    with Connection(amqp_url) as connection:
        channel = connection.connection.channel() if connection.connect() else None
        channel.basic_publish(amqp.Message(b"dead"), exchange=names.DEAD_EXCHANGE)
    [message] = take(source, 1)
    assert message.given_up
    assert message.body == b"dead"


def test_a_rejected_message_reaches_the_dead_queue(new_source, feed):
    source = new_source()
    feed.send_raw(b"poison", names.CONTENT_TYPE_EVENT)
    [message] = take(source, 1)
    assert not message.given_up
    source._channel.basic_reject(source._unacked.popleft()[0], requeue=False)
    [dead] = take(source, 1)
    assert dead.given_up
    assert dead.body == b"poison"


def test_a_queue_with_other_arguments_is_used_as_it_is(new_source, amqp_url):
    with Connection(amqp_url) as connection:
        connection.connect()
        channel = connection.connection.channel()
        channel.queue_declare(names.USAGE_QUEUE, durable=True, auto_delete=False)
    source = new_source()
    made = Connection(amqp_url)
    made.connect()
    made.connection.channel().basic_publish(amqp.Message(b"1"), exchange=names.EXCHANGE, routing_key="usage")
    assert [message.body for message in take(source, 1)] == [b"1"]
    made.close()


def test_a_deleted_queue_is_noticed(new_source, feed):
    source = new_source()
    feed._channel.queue_delete(names.USAGE_QUEUE)
    with pytest.raises(SourceLostError, match="cancelled"):
        take(source, 1)
    source.open()
    assert source.poll(0.0) == []


def test_an_idle_consumer_of_a_filled_queue_is_noticed(new_source, feed, monkeypatch):
    source = new_source()
    monkeypatch.setattr(amqp_source, "CHECK_SECONDS", 0.2)
    source._check_at = 0.0
    source._channel.basic_cancel(source._tags[names.USAGE_QUEUE])  # alive, connected, and gets nothing
    feed.send_raw(b"1", None)
    with pytest.raises(SourceLostError, match="sends none"):
        take(source, 1)
    source.open()
    assert [message.body for message in take(source, 1)] == [b"1"]


def test_a_pause_takes_no_more(new_source, feed):
    source = new_source()
    source.pause()
    feed.send_raw(b"1", None)
    eventually(lambda: feed.waiting() == 1)
    assert source.poll(0.0) == []


def test_a_channel_the_broker_closes_is_noticed_with_its_words(new_source, feed):
    """As when it loses patience with a consumer: the connection lives on, and a newly opened channel would receive nothing."""
    source = new_source()
    feed.send_raw(b"1", None)
    take(source, 1)
    source._channel.basic_ack(999)  # what the broker says comes later, while draining
    with pytest.raises(SourceLostError, match="unknown delivery tag"):
        take(source, 1)
    source.open()
    assert [message.body for message in take(source, 1)] == [b"1"]


@pytest.mark.parametrize(
    ("reply", "step"),
    [
        (b"\x00\x3c\x00\x15", f"the consumer of {names.USAGE_QUEUE}"),  # basic.consume-ok
        (b"\x00\x32\x00\x0b", f"the declaration of {names.DEAD_QUEUE}"),  # queue.declare-ok
    ],
)
def test_a_reply_that_never_comes_is_not_waited_for_while_heartbeats_do(amqp_url, settings, monkeypatch, reply, step):
    monkeypatch.setattr(amqp_source, "HEARTBEAT_SECONDS", 6)  # the broker's come every 3 s, and it bears silence for 12
    monkeypatch.setattr(amqp_source, "REPLY_SECONDS", 2.0)
    parts = urlsplit(amqp_url)
    with Proxy(parts.hostname or "", parts.port or 0) as proxy:
        source = RabbitmqSource(dataclasses.replace(settings, broker_url=proxy.url(amqp_url)))
        lost = proxy.drop_reply(reply, cut=False)
        with pytest.raises(SourceLostError, match=step):
            source.open()
        assert lost.is_set()
        source.open()
        assert source.poll(0.0) == []
        source.close()
