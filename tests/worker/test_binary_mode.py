"""CloudEvents as the public libraries of other languages send them: binary mode, Base64, compressed, under plain JSON."""

from __future__ import annotations

import base64
import datetime as dt
import gzip
import json
import zlib

import amqp
import pytest
import redis
import zstandard
from kombu import Connection

from taximeter import names
from taximeter_db import quarantine
from taximeter_db.connect import booking_connection, connection
from taximeter_worker.consume.brokers.amqp_properties import properties_of
from taximeter_worker.decode import transfer
from taximeter_worker.decode.message import decode_message
from taximeter_worker.decode.result import Limits
from taximeter_worker.tasks.replay import replay
from waiting import eventually
from workers import confirmed_channel, payment, usage

NOW = 1_800_000_000_000_000
JSON = "application/json"
PREFIXES = ("ce-", "cloudEvents:", "cloudEvents_", "ce_", "CE-")


def binary(event: dict, prefix: str = "cloudEvents:") -> tuple[dict[str, str], bytes]:
    """The headers and the body of an event in binary mode."""
    return {f"{prefix}{name}": value for name, value in event.items() if name != "data"}, json.dumps(
        event["data"]
    ).encode()


def decode(body, content_type=JSON, *, headers=None, limits=None, **more):
    properties = {**({"headers": headers} if headers else {}), **more}
    return decode_message(body, content_type, now=NOW, limits=limits or Limits(), properties=properties or None)


def plain(event: dict):
    [read] = decode_message(json.dumps(event).encode(), names.CONTENT_TYPE_EVENT, now=NOW).usages
    return read


# -- binary mode ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("content_type", [JSON, "application/json; charset=utf-8", "application/vnd.acme+json", None])
def test_binary_mode_is_the_same_event(prefix, content_type):
    event = {**usage(input="née", output={"b": 1, "a": [2.50]}), "time": "2026-11-22T10:00:00Z"}
    headers, body = binary(event, prefix)
    [read] = decode(body, content_type, headers=headers).usages
    assert read.fingerprint == plain(event).fingerprint, "a retry in structured mode is a duplicate"
    assert read.payload == plain(event).payload, "byte for byte"
    assert read.occurred_at == plain(event).occurred_at


def test_a_message_in_structured_mode_is_read_as_such_whatever_its_headers_say():
    event = usage()
    headers, _ = binary(usage())
    [read] = decode(json.dumps(event).encode(), names.CONTENT_TYPE_EVENT, headers=headers).usages
    assert read.event_id == event["id"]


def test_nothing_in_the_data_can_pass_for_an_attribute():
    headers, body = binary(usage("acme"))
    forged = body + b',"subject":"other"'
    decoded = decode(forged, headers=headers)
    assert not decoded.usages
    [rejected] = decoded.rejected
    assert (rejected.reason, rejected.event, rejected.workspace_id) == ("bad_json", forged, "acme")
    assert rejected.event_id == headers["cloudEvents:id"]


@pytest.mark.parametrize(
    ("change", "body", "content_type", "reason"),
    [
        ({}, None, "text/plain", "unsupported_content_type"),
        ({}, b"", JSON, "not_an_object"),
        ({}, b"\xff", JSON, "bad_encoding"),
        ({}, b"[" * 100_000, JSON, "too_deep"),
        ({"cloudEvents:id": None}, None, JSON, "id_required"),
        ({"cloudEvents:id": {"a": [1]}}, None, JSON, "bad_type"),
        ({"cloudEvents:time": "yesterday"}, None, JSON, "bad_time"),
        ({"cloudEvents:specversion": "0.3"}, None, JSON, "unsupported_version"),
        ({"ce-id": "another"}, None, JSON, "duplicate_key"),
        ({"ce-data": "{}"}, None, JSON, "duplicate_key"),
    ],
)
def test_what_is_wrong_in_binary_mode_is_named(change, body, content_type, reason):
    headers, data = binary(usage())
    decoded = decode(data if body is None else body, content_type, headers={**headers, **change})
    assert [rejected.reason for rejected in decoded.rejected] == [reason]
    assert not decoded.usages


@pytest.mark.parametrize("prefix", PREFIXES[:3])
def test_a_thousand_messages_in_binary_mode_over_rabbitmq(new_runtime, amqp_url, ledger, prefix):
    """The body of all is the same: what tells them apart is in the headers."""
    with confirmed_channel(amqp_url) as channel:
        for number in range(1000):
            headers, body = binary(usage(f"w{number % 7}"), prefix)
            message = amqp.Message(body, content_type=JSON, delivery_mode=2, application_headers=headers)
            channel.publish(message)
    new_runtime(amqp_url)
    eventually(lambda: ledger.usages == 1000)
    assert ledger.quarantined() == {}
    ledger.verify()


def test_rejected_messages_are_told_apart_by_their_properties_and_keep_them(new_runtime, amqp_url, ledger, priced_url):
    with confirmed_channel(amqp_url) as channel:
        moment = dt.datetime(2026, 11, 22, 10, tzinfo=dt.UTC)
        for number in range(3):
            headers, _ = binary(usage("acme", event_id=f"e-{number}"))
            headers |= {"x-flag": True, "x-bytes": b"\xff\x00", "x-when": moment, "x-nested": {"a": [1, 2.5, None]}}
            message = amqp.Message(
                b"not json", content_type=JSON, application_headers=headers, app_id="biller", message_id=f"m-{number}"
            )
            for _ in range(2):  # the same message twice is one entry
                channel.publish(message)
            channel.publish(amqp.Message(b"\x00", content_type=JSON, message_id=f"m-{number}"))
    new_runtime(amqp_url)
    eventually(lambda: sum(ledger.quarantined().values()) == 6)
    with connection(priced_url) as conn:
        entries = quarantine.find(conn)
    nameless = [entry for entry in entries if entry.event == b"\x00"]
    assert {entry.properties["message_id"] for entry in nameless} == {"m-0", "m-1", "m-2"}
    kept = next(entry for entry in entries if entry.event_id == "e-0")
    assert (kept.event, kept.workspace_id, kept.reason) == (b"not json", "acme", "bad_json")
    assert kept.properties["app_id"] == "biller"
    assert kept.properties["headers"]["x-when"] == "2026-11-22T10:00:00Z"
    assert kept.properties["headers"]["cloudEvents:id"] == "e-0"


def test_headers_of_the_broker_do_not_count():
    given = {
        "application_headers": {"x-delivery-count": 3, "x-death": [{}], "x-first-death-queue": "q"},
        "user_id": "u",
    }
    assert properties_of(given) == {"user_id": "u"}


def test_an_event_in_binary_mode_can_be_replayed(priced_url, ledger):
    """What had no price is kept as a structured event; what could not be read, with its headers."""
    headers, body = binary(usage("acme", model="new"))
    compressed = gzip.compress(body, mtime=0)
    rejected = decode(
        compressed, headers=headers, content_encoding="gzip", limits=Limits(message_bytes_max=10)
    ).rejected
    assert [entry.reason for entry in rejected] == ["too_large"]
    with booking_connection(priced_url) as conn:
        from taximeter_db.ledger import booking

        booking.book(conn, [], [], rejected)
        [entry] = quarantine.find(conn)
        [done] = replay(conn, [entry.id])
        assert (done.result, done.reason) == ("kept", "price_missing"), "it could be read"
        from workers import set_prices

        set_prices(priced_url, "new")
        [done] = replay(conn, [entry.id])
        assert done.result == "booked"
    assert ledger.balance("acme") == "-0.001"


def test_a_payment_by_the_way_of_usage_says_who_sent_it(new_runtime, amqp_url, rabbitmq, ledger):
    user = Connection(amqp_url).info()["userid"]
    with confirmed_channel(amqp_url) as channel:
        body = json.dumps(payment("acme", "7")).encode()
        channel.publish(amqp.Message(body, content_type=names.CONTENT_TYPE_EVENT, user_id=user))
    new_runtime(amqp_url)
    eventually(lambda: ledger.quarantined() == {"wrong_queue": 1})
    assert f"the broker's user '{user}'" in ledger.one("SELECT detail FROM taximeter.quarantine")
    assert ledger.one("SELECT properties->>'user_id' FROM taximeter.quarantine") == user


# -- data in Base64 -------------------------------------------------------------------------------------------------


def in_base64(event: dict, data: bytes | None = None) -> bytes:
    text = json.dumps(event["data"]).encode() if data is None else data
    return json.dumps(
        {**{k: v for k, v in event.items() if k != "data"}, "data_base64": base64.b64encode(text).decode()}
    ).encode()


def test_data_in_base64_is_the_same_event():
    event = {**usage(input={"z": 1.50, "a": "é"}, more=1), "time": "2026-11-22T10:00:00Z"}
    [read] = decode_message(in_base64(event), names.CONTENT_TYPE_EVENT, now=NOW).usages
    assert (read.fingerprint, read.payload) == (plain(event).fingerprint, plain(event).payload)


@pytest.mark.parametrize(
    ("data", "reason", "said"),
    [
        (b"\x89PNG", "bad_encoding", "data_base64"),
        (b"{", "bad_json", "data_base64"),
        (b"[1]", "not_an_object", "data must be"),
        (b'{"tool":"a","tool":"b","quantities":{"requests":1}}', "duplicate_key", "tool"),
        (b'{"tool":"a","quantities":{"requests":1},"input":NaN}', "bad_number", "NaN"),
    ],
)
def test_data_in_base64_that_is_no_event_is_named(data, reason, said):
    [rejected] = decode_message(in_base64(usage(), data), names.CONTENT_TYPE_EVENT, now=NOW).rejected
    assert rejected.reason == reason
    assert said in rejected.detail


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data_base64": "e30="}, "duplicate_key"),
        ({"data": None, "data_base64": 1}, "bad_type"),
        ({"data": None, "data_base64": "%"}, "bad_encoding"),
    ],
)
def test_data_given_twice_or_not_in_base64(change, reason):
    [rejected] = decode_message(json.dumps({**usage(), **change}).encode(), names.CONTENT_TYPE_EVENT, now=NOW).rejected
    assert rejected.reason == reason


# -- compressed -----------------------------------------------------------------------------------------------------

COMPRESSED = {
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "x-gzip": gzip.compress,
}


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("encoding", COMPRESSED)
def test_compressed_messages_are_read(encoding, declared):
    body = COMPRESSED[encoding](json.dumps([usage(), {"x": 1}, usage()]).encode())
    decoded = decode(body, names.CONTENT_TYPE_BATCH, **({"content_encoding": encoding} if declared else {}))
    assert len(decoded.usages) == 2
    [rejected] = decoded.rejected
    assert rejected.event == b'{"x": 1}'
    assert rejected.properties is None, "it is not compressed any more"


def test_members_and_frames_in_a_row_are_one_message():
    first, second = (json.dumps(usage()).encode() for _ in range(2))
    for compress in (gzip.compress, zstandard.compress):
        body = compress(b"[" + first + b",") + compress(second + b"]")
        assert len(decode(body, names.CONTENT_TYPE_BATCH).usages) == 2


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_bomb_ends_at_the_limit(encoding):
    body = COMPRESSED[encoding](b" " * 50_000_000)
    [rejected] = decode(body, JSON, content_encoding=encoding, limits=Limits(message_bytes_max=1_000_000)).rejected
    assert rejected.reason == "too_large"
    assert rejected.event == body
    assert json.loads(rejected.properties) == {"content_encoding": encoding}


@pytest.mark.parametrize(
    ("body", "encoding", "reason"),
    [
        (gzip.compress(b"[]", mtime=0)[:-9], "gzip", "bad_encoding"),
        (b"{}", "gzip", "bad_encoding"),
        (b"{}", "zstd", "bad_encoding"),
        (zlib.compress(b"\xff" * 100), "deflate", "unsupported_content_type"),
    ],
)
def test_what_cannot_be_opened_is_named(body, encoding, reason):
    [rejected] = decode(body, JSON, content_encoding=encoding).rejected
    assert rejected.reason == reason
    assert encoding in rejected.detail


@pytest.mark.parametrize("encoding", ["utf-8", "UTF-8", "binary", "identity", "iso-8859-1"])
def test_a_character_set_in_the_place_of_an_encoding_changes_nothing(encoding):
    assert decode(json.dumps(usage()).encode(), JSON, content_encoding=encoding).usages


def test_a_batch_is_measured_by_what_its_messages_open_to():
    body = gzip.compress(b" " * 10_000_000, mtime=0)
    assert transfer.bytes_estimate(body, None, 16 * 2**20) >= 9_000_000
    assert transfer.bytes_estimate(b"{}", None, 16 * 2**20) == 2


def test_compressed_messages_over_both_brokers(new_runtime, feed, ledger, broker_url):
    new_runtime(broker_url)
    feed.send_raw(gzip.compress(json.dumps([usage() for _ in range(50)]).encode()), names.CONTENT_TYPE_BATCH)
    feed.send_raw(zstandard.compress(json.dumps(usage()).encode()), names.CONTENT_TYPE_EVENT)
    eventually(lambda: ledger.usages == 51)
    assert ledger.quarantined() == {}


# -- one form, one answer -------------------------------------------------------------------------------------------


def test_an_array_under_plain_json_is_a_batch_on_both_brokers(new_runtime, feed, ledger, broker_url):
    new_runtime(broker_url)
    feed.send_raw(json.dumps([None, usage(), usage()]).encode(), JSON)
    celery = json.dumps([["arg"], {}, {"callbacks": None}]).encode()
    feed.send_raw(celery, JSON)
    eventually(lambda: ledger.usages == 2)
    eventually(lambda: ledger.quarantined() == {"not_an_object": 2})
    assert ledger.one("SELECT count(*) FROM taximeter.quarantine WHERE event = %s", celery) == 1, "whole"


def test_binary_mode_in_the_envelope_of_kombu(new_runtime, valkey_broker_url, ledger):
    new_runtime(valkey_broker_url)
    headers, body = binary(usage("acme"))
    envelope = {
        "body": base64.b64encode(body).decode(),
        "content-type": JSON,
        "content-encoding": "binary",
        "headers": headers,
        "properties": {"body_encoding": "base64"},
    }
    with redis.Redis.from_url(valkey_broker_url) as client:
        client.lpush(names.USAGE_QUEUE, json.dumps(envelope))
    eventually(lambda: ledger.balance("acme") == "-0.001")
