"""What becomes of a message that is accepted, in whole or in part."""

from __future__ import annotations

from decimal import Decimal

import pytest

from decode_events import BATCH, EVENT, batch, decode, event, inserted, payment, quantity, usage_data, wire
from taximeter_db import money
from taximeter_db.ledger.events import event_key


def test_empty_batch_is_accepted():
    for content_type in (BATCH, None):
        decoded = decode(b" [ ]\n", content_type)
        assert (decoded.usages, decoded.payments, decoded.rejected) == ([], [], [])


def test_one_bad_event_of_a_thousand():
    events = [event(number) for number in range(1000)]
    events[500]["subject"] = "?"
    decoded = decode(batch(*events))
    assert len(decoded.usages) == 999
    assert [rejected.reason for rejected in decoded.rejected] == ["workspace_charset"]


def test_an_empty_place_in_a_batch_costs_no_neighbour():
    one, two = wire(event(1)), wire(event(2))
    for body in (b"[%b,,%b]" % (one, two), b"[ ,%b, ,%b]" % (one, two)):
        decoded = decode(body, BATCH)
        assert [usage.raw for usage in decoded.usages] == [one, two]
        assert {bad.reason for bad in decoded.rejected} == {"bad_json"}
    decoded = decode(b"[%b,,%b,]" % (one, two), BATCH)
    assert (len(decoded.usages), len(decoded.rejected)) == (2, 2)


def test_truncated_batch_keeps_what_was_complete():
    body = batch(event(1), event(2), event(3))[:-30]
    decoded = decode(body)
    assert [usage.event_id[-1] for usage in decoded.usages] == ["1", "2"]
    [rejected] = decoded.rejected
    assert rejected.reason == "bad_json"
    assert body.endswith(rejected.event)
    assert f"byte {body.index(rejected.event)} of {len(body)}" in rejected.detail


def test_detail_of_broken_json_tells_the_byte():
    [rejected] = decode(b'{"id": "\xc3\xa9", oops}', EVENT).rejected
    assert "byte 13 of 18" in rejected.detail


@pytest.mark.parametrize("tail", [b"}", b"] x", b",", b",]"])
def test_what_follows_the_last_event_is_rejected_by_itself(tail):
    decoded = decode(batch(event(1), event(2))[:-1] + tail)
    assert len(decoded.usages) == 2
    assert [rejected.reason for rejected in decoded.rejected] == ["bad_json"]
    assert decoded.rejected[0].event


def test_usage_in_full():
    raw = wire(event(data=usage_data(provider="openai", quantities={"seconds": 12.5, "input_tokens": 1200})))
    [usage] = decode(raw, EVENT).usages
    event_id = "0199c7f2-6d0e-7a55-8f3c-000000000001"
    assert (usage.workspace_id, usage.event_id, usage.key) == ("acme", event_id, event_key(event_id))
    assert (usage.tool, usage.provider, usage.model) == ("chat", "openai", "gpt-4o")
    assert usage.quantities == {"seconds": Decimal("12.5"), "input_tokens": 1200}
    assert usage.occurred_at == 1_795_341_600_123_000
    assert usage.payload is None
    assert usage.raw == raw
    assert len(usage.fingerprint) == 16
    assert (usage.cost, usage.price_version) == (0, 0)


@pytest.mark.parametrize(("kind", "amount"), [("clawback", "-5"), ("reinstated", "5"), ("expiry", "-0.5")])
def test_payments_that_concern_another_one(kind: str, amount: str):
    [booked] = decode(wire(payment(kind=kind, amount=amount, transaction={"payment_id": "pi_1"})), EVENT).payments
    assert (booked.kind, booked.amount, booked.transaction) == (kind, money.parse_usd(amount), {"payment_id": "pi_1"})


def test_payment_in_full():
    transaction = {"provider": "stripe", "reference": "pi_3", "invoice": "7"}
    [read] = decode(wire(payment(transaction=transaction, note="thanks")), EVENT).payments
    assert (read.workspace_id, read.kind, read.amount) == ("acme", "top_up", 25 * 10**12)
    assert (read.transaction, read.note) == (transaction, "thanks")
    [negative] = decode(wire(payment(amount="-0.000000000001", kind="adjustment")), EVENT).payments
    assert negative.amount == -1


def test_events_in_full_bytes_of_a_batch_are_those_received():
    first, second = b'{ "id":1 }', wire(event())
    decoded = decode(b"[ " + first + b" ,\n" + second + b" ]")
    assert decoded.usages[0].raw == second
    assert decoded.rejected[0].event == first


@pytest.mark.parametrize(
    ("digits", "value"),
    [
        ("0", 0),
        ("-0", 0),
        ("-0.0", 0),
        ("0e999999999999", 0),
        ("12", 12),
        ("12.0", 12),
        ("1.2e1", 12),
        ("1e15", 10**15),
        ("0.000001", Decimal("0.000001")),
        ("2.50000000000000000000000000000000000", Decimal("2.5")),
        ("999999999999999.999999", Decimal("999999999999999.999999")),
    ],
)
def test_quantities_are_exact_and_have_one_form(digits, value):
    [usage] = decode(quantity(digits), EVENT).usages
    read = usage.quantities["input_tokens"]
    assert (str(read), type(read)) == (str(value), type(value))


@pytest.mark.parametrize(
    "content_type", [EVENT, "Application/CloudEvents+JSON ; x=y", "application/json", "", None, BATCH]
)
def test_a_single_event_under_every_content_type(content_type):
    assert len(decode(b"\n" + wire(event()), content_type).usages) == 1


def test_a_batch_without_a_content_type():
    assert len(decode(b"\n[ " + wire(event()) + b"]", None).usages) == 1


def test_optional_things_may_be_missing_null_or_new():
    bare = event(without=["source"], data=usage_data(provider=None, model="", metadata=None))
    [usage] = decode(wire(bare), EVENT).usages
    assert (usage.provider, usage.model, usage.payload) == (None, None, None)
    extended = event(traceparent="00-ab", datacontenttype="application/json", data=usage_data(team="blue", input=None))
    [usage] = decode(wire(extended), EVENT).usages
    assert usage.payload == b'{"input":null,"team":"blue"}'


def test_limits_are_settings():
    deep = inserted("[" * 63 + "]" * 63, data=usage_data(input="@@"))
    assert decode(deep, EVENT, depth_max=65).usages
    assert decode(wire(event(time="2026-11-22T12:00:00Z")), EVENT, future_seconds_max=3600).usages
    assert decode(wire(event()), EVENT, event_bytes_max=50).rejected[0].reason == "too_large"
    assert decode(wire(event()), EVENT, message_bytes_max=50).rejected[0].reason == "too_large"
