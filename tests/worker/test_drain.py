"""One broker's queues into another, on real servers: all of it, once in effect, also when a run is killed half-way."""

from __future__ import annotations

import gzip
import itertools
import json
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import amqp
import pytest
import redis
from kombu import Connection

from cloud_events import cloud_event
from instances import COMMAND
from servers.rabbitmq import RabbitMQ
from taximeter import names
from taximeter.brokers.opening import Broker
from taximeter.brokers.signing import ProducerKey
from taximeter_cli import main
from taximeter_cli.embedded.valkey import Valkey
from taximeter_worker import drain as drain_module
from taximeter_worker.consume.brokers.redis import alive_key
from taximeter_worker.consume.brokers.source import make_source
from taximeter_worker.decode.message import decode_message
from taximeter_worker.drain import Drained, drain
from taximeter_worker.errors import DrainError
from taximeter_worker.settings import Settings

DIRECTIONS = [("rabbitmq", "valkey"), ("valkey", "rabbitmq"), ("rabbitmq", "rabbitmq")]
NOW = 2**51
"""Later than whatever the events say."""


def settings(url: str) -> Settings:
    return Settings.from_env({"TAXIMETER_BROKER_URL": url}, without=["database_url", "redis_url"])


def prepare(url: str) -> None:
    """Declare what a worker declares."""
    source = make_source(settings(url))
    source.open()
    source.close()


def put(url: str, count: int, routing_key: str = names.USAGE_ROUTING_KEY) -> set[str]:
    """Publish messages of one event each; returns the events' ids."""
    kind = names.PAYMENT_TYPE if routing_key == names.PAYMENT_ROUTING_KEY else names.USAGE_TYPE
    data = (
        {"amount": "5", "kind": "top_up"}
        if kind == names.PAYMENT_TYPE
        else {"tool": "t", "quantities": {"requests": 1}}
    )
    ids = {f"{routing_key}-{number}" for number in range(count)}
    transport = Broker(url).open()
    transport.connect()
    tags = {transport.publish(routing_key, json.dumps([cloud_event(kind, data, event_id=one)]).encode()) for one in ids}
    while tags:
        tags -= {verdict.tag for verdict in transport.settle(5) if verdict.error is None}
    transport.drop()
    return ids


def taken(url: str, expected: int) -> dict[str, Counter[str]]:
    """Take what has arrived, as a worker does: the ids of each queue's events, and how often each is there."""
    source = make_source(settings(url))
    source.open()
    found: dict[str, Counter[str]] = {names.USAGE_QUEUE: Counter(), names.PAYMENT_QUEUE: Counter()}
    empty = 0
    while empty < 3 and (sum(map(len, found.values())) < expected or not empty):
        messages = source.poll(1)
        empty = 0 if messages else empty + 1
        for message in messages:
            decoded = decode_message(message.body, message.content_type, now=NOW, properties=message.properties)
            assert not decoded.rejected, decoded.rejected
            assert message.may_pay == (message.queue == names.PAYMENT_QUEUE)
            ids = [usage.event_id for usage in decoded.usages] + [payment.payment_id for payment in decoded.payments]
            found.setdefault(message.queue, Counter()).update(ids)
        source.ack(len(messages))
    source.close()
    return found


@pytest.fixture
def place(request: pytest.FixtureRequest, valkey: Valkey) -> Iterator[Callable[[str], str]]:
    """Factory of empty brokers of a kind, with a worker's queues: databases of one Valkey, virtual hosts of one node."""
    made: list[tuple[RabbitMQ, str]] = []
    databases = itertools.count(1)

    def make(kind: str) -> str:
        if kind == "valkey":
            url = valkey.url(next(databases))
        else:
            node: RabbitMQ = request.getfixturevalue("rabbitmq")
            made.append((node, node.make_vhost()))
            url = node.url(made[-1][1])
        prepare(url)
        return url

    yield make
    for node, name in made:
        node.drop_vhost(name)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing arrives at the sources of these tests any more: whoever has had nothing for a moment is done."""
    monkeypatch.setattr(drain_module, "IDLE_SECONDS", 1.0)
    monkeypatch.setattr(drain_module, "IDLE_SECONDS_AMONG_OTHERS", 1.0)


@pytest.mark.parametrize(("kind_from", "kind_to"), DIRECTIONS)
def test_everything_is_moved_and_nothing_stays(place: Callable[[str], str], kind_from: str, kind_to: str) -> None:
    source, target = place(kind_from), place(kind_to)
    usages, payments = put(source, 300), put(source, 20, names.PAYMENT_ROUTING_KEY)
    seen: list[tuple[int, int]] = []
    drained = drain(source, target, {}, lambda done, known: seen.append((done, known)))
    assert drained.queues == {names.USAGE_QUEUE: 300, names.PAYMENT_QUEUE: 20}
    assert drained.messages == seen[-1][0] == seen[-1][1] == 320
    found = taken(target, 320)
    assert found[names.USAGE_QUEUE] == Counter(usages)
    assert found[names.PAYMENT_QUEUE] == Counter(payments)
    assert drain(source, target, {}) == Drained()


@pytest.mark.parametrize(
    ("kind_from", "kind_to", "point"),
    [(*DIRECTIONS[0], "after_drain_ack"), *((*pair, "before_drain_ack") for pair in DIRECTIONS)],
)
def test_a_run_that_is_killed_loses_nothing(
    place: Callable[[str], str],
    environment: dict[str, str],
    kind_from: str,
    kind_to: str,
    point: str,
) -> None:
    source, target = place(kind_from), place(kind_to)
    ids = put(source, 1_000)
    killed = subprocess.run(
        [*COMMAND, "drain", "--from", source, "--to", target],
        env={**environment, "TAXIMETER_FAILPOINT": f"{point}:2", "TAXIMETER_BATCH_BYTES_MAX": "65536"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    if kind_from == "valkey":
        with redis.Redis.from_url(source) as client:  # its sign of life runs out after a quarter of a minute
            (dead,) = client.hkeys(names.CONSUMERS)
            assert client.delete(alive_key(dead.decode())) == 1
    drained = drain(source, target, {})
    assert 0 < drained.messages < 1_000, "the killed run had moved some, and not all"
    found = taken(target, 1_000)[names.USAGE_QUEUE]
    assert set(found) == ids
    assert set(found.values()) <= {1, 2}
    assert drain(source, target, {}) == Drained()


def test_what_headers_say_reaches_a_broker_without_headers(place: Callable[[str], str]) -> None:
    source, target = place("rabbitmq"), place("valkey")
    event = cloud_event(names.USAGE_TYPE, {"tool": "t", "quantities": {"requests": 1}}, event_id="1")
    whole = json.dumps(event).encode()
    binary = {f"cloudEvents:{name}": value for name, value in event.items() if name not in {"data", "id"}}
    sent: list[tuple[bytes, dict[str, Any]]] = [
        (whole.replace(b'"1"', b'"single"'), {"content_type": names.CONTENT_TYPE_EVENT}),
        (
            json.dumps(event["data"]).encode(),
            {"content_type": "application/json", "application_headers": {**binary, "cloudEvents:id": "binary"}},
        ),
        (
            gzip.compress(whole.replace(b'"1"', b'"packed"')),
            {"content_type": names.CONTENT_TYPE_EVENT, "content_encoding": "gzip"},
        ),
        (
            gzip.compress(b"[" + whole.replace(b'"1"', b'"packed batch"') + b"]"),
            {"content_type": names.CONTENT_TYPE_BATCH, "content_encoding": "gzip"},
        ),
    ]
    with Connection(source) as connection, connection.channel() as channel:
        for body, properties in sent:
            channel.basic_publish(amqp.Message(body, **properties), names.EXCHANGE, names.USAGE_ROUTING_KEY)
        # usage by its key, whatever queue else it reaches: it may not pay at the target either
        forged = json.dumps([cloud_event(names.USAGE_TYPE, event["data"], event_id="copied")]).encode()
        copies = amqp.Message(
            forged, content_type=names.CONTENT_TYPE_BATCH, application_headers={"CC": [names.PAYMENT_ROUTING_KEY]}
        )
        channel.basic_publish(copies, names.EXCHANGE, "nowhere")
    drained = drain(source, target, {})
    assert drained.queues == {names.USAGE_QUEUE: 4, names.PAYMENT_QUEUE: 1}
    found = taken(target, 5)
    assert set(found[names.USAGE_QUEUE]) == {"single", "binary", "packed", "packed batch", "copied"}
    assert not found[names.PAYMENT_QUEUE]


def test_what_cannot_be_read_goes_as_it_is(place: Callable[[str], str]) -> None:
    source, target = place("valkey"), place("valkey")
    bodies = [b"\x00\xff", b'{"a": 1}, {"b": 2}', b'{"a"', b""]
    with redis.Redis.from_url(source) as client:
        client.lpush(names.USAGE_QUEUE, *bodies)
    assert drain(source, target, {}).messages == 4
    with redis.Redis.from_url(target) as client:
        assert client.lrange(names.USAGE_QUEUE, 0, -1) == bodies[::-1]


def test_signatures_are_checked_at_the_source_and_made_for_the_target(place: Callable[[str], str]) -> None:
    source, target = place("valkey"), place("valkey")
    key = "tool:" + "s" * 32
    event = json.dumps([cloud_event(names.USAGE_TYPE, {"tool": "t", "quantities": {"requests": 1}})]).encode()
    environ = {"TAXIMETER_PRODUCER_KEYS": key, "TAXIMETER_PRODUCER_KEY": key}
    with redis.Redis.from_url(source) as client, redis.Redis.from_url(target) as there:
        client.lpush(names.USAGE_QUEUE, ProducerKey.parse(key).sign(names.USAGE_QUEUE, event))
        assert drain(source, target, environ).messages == 1
        assert there.lrange(names.USAGE_QUEUE, 0, -1) == [ProducerKey.parse(key).sign(names.USAGE_QUEUE, event)]
        client.lpush(names.USAGE_QUEUE, event)
        with pytest.raises(DrainError, match="signature that does not hold"):
            drain(source, target, environ)
        assert client.lrange(names.USAGE_QUEUE, 0, -1) == [event]
        assert there.llen(names.USAGE_QUEUE) == 1


def test_one_broker_under_two_names_is_refused(place: Callable[[str], str]) -> None:
    valkey, rabbitmq = place("valkey"), place("rabbitmq")
    ids = put(rabbitmq, 1)
    for url in (valkey, rabbitmq):
        with pytest.raises(DrainError, match="one broker"):
            drain(url, url, {})
    assert "127.0.0.1" in rabbitmq
    with pytest.raises(DrainError, match="one broker"):
        drain(rabbitmq, rabbitmq.replace("127.0.0.1", "localhost"), {})
    assert set(taken(rabbitmq, 1)[names.USAGE_QUEUE]) == ids


def test_a_target_without_queues_keeps_the_messages_at_the_source(place: Callable[[str], str], amqp_url: str) -> None:
    source = place("valkey")
    ids = put(source, 3)
    with pytest.raises(DrainError, match="has a worker ever been started"):
        drain(source, amqp_url, {})
    assert set(taken(source, 3)[names.USAGE_QUEUE]) == ids


def test_the_command_tells_people_and_machines(
    place: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = place("valkey"), place("valkey")
    put(source, 2)
    monkeypatch.setenv("TAXIMETER_BROKER_URL", target)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["taximeter", "drain", *arguments])
        code = main.run()
        done = capsys.readouterr()
        return code, done.out, done.err

    code, out, _ = run("--from", source, "--json")
    assert (code, json.loads(out)["messages"], json.loads(out)["queues"]) == (0, 2, {names.USAGE_QUEUE: 2})
    put(source, 1)
    code, out, _ = run("--from", source)
    assert code == 0
    assert "Moved 1 message" in out
    code, _, err = run("--from", target)
    assert code == 1
    assert "one broker" in err
    code, _, err = run("--from", "http://user:geheim@nowhere")
    assert code == 1
    assert "geheim" not in err
    assert run()[0] == 2
