"""Properties that py-amqp cannot read: the message is taken all the same, with what can be read of them."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator

import amqp
import pytest
from kombu import Connection

from taximeter import names
from taximeter_worker.consume.brokers.rabbitmq import RabbitmqSource
from taximeter_worker.consume.brokers.source import Message
from taximeter_worker.consume.brokers.unreadable_headers import UNREADABLE, is_readable, readable
from taximeter_worker.settings import Settings
from waiting import eventually
from workers import Feed, usage

LEVELS = 15_000
CONTENT_TYPE, HEADERS, MESSAGE_ID, APP_ID = 0x8000, 0x2000, 0x0080, 0x0008
BODY_HEADER = struct.pack(">HHQ", 60, 0, 2)


def text(octets: bytes) -> bytes:
    return bytes((len(octets),)) + octets


def table(inside: bytes) -> bytes:
    return struct.pack(">I", len(inside)) + inside


def header(kind: bytes, value: bytes) -> bytes:
    return table(text(b"x") + kind + value)


def nested() -> bytes:
    """Tables within tables, deeper than any stack of Python's, in one frame."""
    inside = b""
    for _ in range(LEVELS):
        inside = text(b"") + b"F" + table(inside)
    return table(inside)


PROPERTIES = {
    "tables nested beyond the stack": (HEADERS, nested()),
    "a time after the year 9999": (HEADERS, header(b"T", struct.pack(">Q", 10**13))),
    "a time beyond a machine's numbers": (HEADERS, header(b"T", struct.pack(">Q", 2**63))),
    "a message id that is not UTF-8": (MESSAGE_ID, text(b"\xff\xfe")),
    "a content type that is not UTF-8": (CONTENT_TYPE, text(b"\xff" * 255)),
}


class Raw(amqp.Message):
    """A message with properties given byte for byte."""

    raw = b""

    def _serialize_properties(self) -> bytes:
        return self.raw


def publish(url: str, flags: int, properties: bytes, body: bytes) -> None:
    message = Raw(body)
    message.raw = struct.pack(">H", flags) + properties
    with Connection(url, transport_options={"confirm_publish": True}) as connection:
        connection.connect()
        connection.connection.channel().basic_publish(message, routing_key=names.USAGE_QUEUE)


@pytest.fixture
def feed(amqp_url: str) -> Iterator[Feed]:
    made = Feed(amqp_url)
    yield made
    made.close()


@pytest.fixture
def source(amqp_url: str) -> Iterator[RabbitmqSource]:
    made = RabbitmqSource(
        Settings(database_url="postgresql://nowhere", broker_url=amqp_url, redis_url="redis://nowhere")
    )
    made.open()
    yield made
    made.close()


def taken(source: RabbitmqSource) -> Message:
    messages: list[Message] = []
    eventually(lambda: messages.extend(source.poll(0.1)) or messages)
    [message] = messages
    return message


@pytest.mark.parametrize("what", [what for what in PROPERTIES if "content type" not in what])
def test_a_message_with_unreadable_properties_is_booked_once(new_runtime, amqp_url, feed, ledger, what):
    runtime = new_runtime(amqp_url)
    eventually(lambda: runtime.metrics.registry.get_sample_value("taximeter_broker_connected") == 1)
    publish(amqp_url, *PROPERTIES[what], json.dumps(usage("acme")).encode())
    feed.send(usage("acme"))
    eventually(lambda: ledger.usages == 2)
    eventually(lambda: feed.waiting() == 0)
    assert not runtime.metrics.registry.get_sample_value("taximeter_broker_reconnects_total")


def test_one_whose_content_type_cannot_be_read_is_kept_and_holds_nothing_up(new_runtime, amqp_url, feed, ledger):
    new_runtime(amqp_url)
    publish(amqp_url, *PROPERTIES["a content type that is not UTF-8"], json.dumps(usage("acme")).encode())
    feed.send(usage("acme"))
    eventually(lambda: ledger.usages == 1)
    eventually(lambda: ledger.quarantined() == {"unsupported_content_type": 1})


def test_one_that_arrives_while_the_consumer_starts_is_taken_too(amqp_url, source, feed):
    """Messages come before the broker's reply to the request for them."""
    source._disconnect()
    publish(amqp_url, *PROPERTIES["tables nested beyond the stack"], b"{}")
    source.open()
    assert taken(source).body == b"{}"


def test_what_can_be_read_stays_and_the_rest_is_kept_as_bytes(amqp_url, source):
    flags, headers = PROPERTIES["a time after the year 9999"]
    given = text(b"application/json") + headers + text(b"m\xff1") + text(b"app")
    publish(amqp_url, flags | CONTENT_TYPE | MESSAGE_ID | APP_ID, given, b"")
    message = taken(source)
    assert (message.body, message.content_type) == (b"", "application/json")
    assert message.properties is not None
    assert message.properties["app_id"] == "app"
    assert message.properties["message_id"] == "m\N{REPLACEMENT CHARACTER}1"
    kept = message.properties["headers"][UNREADABLE]
    as_bytes = base64.b64decode(kept["base64"]) if isinstance(kept, dict) else kept.encode()
    assert table(as_bytes) == headers


@pytest.mark.parametrize("what", PROPERTIES)
def test_a_header_frame_that_is_cut_off_anywhere_can_be_read(what):
    flags, given = PROPERTIES[what]
    whole = BODY_HEADER + struct.pack(">H", flags) + given
    assert not is_readable(whole)
    for end in {12, 13, 14, 15, 16, 18, 20, len(whole) - 1, len(whole)}:
        assert is_readable(readable(whole[:end]))


def test_what_py_amqp_reads_is_left_as_it_is():
    message = amqp.Message(b"", content_type="a", application_headers={"x": [1, {"y": None}]}, priority=3, timestamp=1)
    whole = BODY_HEADER + bytes(message._serialize_properties())
    assert is_readable(whole)
    assert readable(whole) == whole
