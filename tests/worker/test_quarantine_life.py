"""An entry's life: replayed with a correction or dismissed with a reason, each attempt logged, nothing received changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from taximeter_db import quarantine
from taximeter_db.connect import booking_connection
from taximeter_db.ledger import booking as ledgers
from taximeter_db.ledger.events import Rejected
from taximeter_db.quarantine import Attempt
from taximeter_worker.errors import CorrectionError
from taximeter_worker.pricing.loading import load_book
from taximeter_worker.tasks.corrections import corrected
from taximeter_worker.tasks.replay import replay, replay_waiting
from workers import Ledger, payment, set_prices, usage


@pytest.fixture
def conn(priced_url: str) -> Iterator[psycopg.Connection[Any]]:
    with booking_connection(priced_url) as made:
        yield made


@pytest.fixture
def quarantined(conn):
    def quarantined(
        event: Any, reason: str = "bad_type", content_type: str | None = "application/cloudevents+json"
    ) -> int:
        raw = event if isinstance(event, bytes) else json.dumps(event).encode()
        ledgers.book(conn, [], [], [Rejected(reason, "Rejected by the test.", raw, content_type)])
        [entry] = [one for one in quarantine.find(conn) if one.event == raw]
        return entry.id

    return quarantined


def tried(conn, entry_id: int) -> list[tuple[Any, ...]]:
    return [(a.action, a.result, a.reason, a.correction, a.done_by) for a in quarantine.actions(conn, entry_id)]


def test_a_correction_is_booked_stored_and_linked_and_the_entry_stays_as_received(conn, quarantined, ledger: Ledger):
    raw = json.dumps(usage("acme", -5, input="\ud800 1.10", metadata={"n": 1.10})).replace("1.1}", "1.10}").encode()
    number = quarantined(raw, "negative_quantity")
    fixed = corrected(raw, ["data.quantities.input_tokens=12"])
    [done] = replay(conn, [number], Attempt("ada", "the sign was wrong", correction=fixed))
    assert done.result == "booked"
    assert ledger.balance("acme") == "-0.000012"
    entry = quarantine.get(conn, number)
    assert (entry.event, entry.resolution, entry.resolved_by) == (raw, "replayed", "ada")
    assert tried(conn, number) == [("replay", "booked", None, fixed, "ada")]
    [action] = quarantine.actions(conn, number)
    assert (action.note, action.entry_id) == ("the sign was wrong", number)
    assert action.done_at >= entry.received_at
    # what nobody touched is stored byte for byte
    payload = bytes(ledger.one("SELECT payload FROM taximeter.usage_payloads"))
    assert b'"\\ud800 1.10"' in payload
    assert b'{"n": 1.10}' in payload
    ledger.verify()


def test_a_correction_that_does_not_help_changes_nothing_and_is_logged(conn, quarantined, ledger: Ledger):
    number = quarantined(usage("acme", -5), "negative_quantity")
    still = corrected(quarantine.get(conn, number).event, ["data.quantities.input_tokens=0.1234567"])
    [done] = replay(conn, [number], Attempt("ada", correction=still))
    assert (done.result, done.reason) == ("kept", "too_precise")
    assert quarantine.get(conn, number).resolved_at is None
    [done] = replay(conn, [number], Attempt("bob"))
    assert (done.result, done.reason) == ("kept", "negative_quantity")
    assert tried(conn, number) == [
        ("replay", "kept", "too_precise", still, "ada"),
        ("replay", "kept", "negative_quantity", None, "bob"),
    ]
    assert ledger.usages == 0
    assert ledger.quarantined() == {"negative_quantity": 1}


def test_a_correction_under_a_used_id_keeps_the_entry_open_under_its_number(conn, quarantined, ledger: Ledger):
    first = usage("acme", 7, event_id="one")
    replay(conn, [quarantined(first)])
    number = quarantined(usage("acme", -9, event_id="one"), "negative_quantity")
    fixed = corrected(quarantine.get(conn, number).event, ["data.quantities.input_tokens=9"])
    [done] = replay(conn, [number], Attempt("ada", correction=fixed))
    assert (done.result, done.reason) == ("kept", "id_conflict")
    assert [one.id for one in quarantine.find(conn)] == [number]
    [done] = replay(conn, [number], Attempt("ada", correction=corrected(fixed, ["id=two"])))
    assert done.result == "booked"
    assert ledger.balance("acme") == "-0.000016"
    assert [result for _, result, *_ in tried(conn, number)] == ["kept", "booked"]
    ledger.verify()


def test_a_correction_of_a_whole_message_is_booked_whole_or_not_at_all(conn, quarantined, ledger: Ledger):
    events = [usage("acme", 1, event_id="a"), usage("acme", -1, event_id="b")]
    number = quarantined(json.dumps(events)[:-30].encode(), "bad_json", None)
    [done] = replay(conn, [number], Attempt("replay", correction=json.dumps(events).encode()))
    assert (done.result, done.reason) == ("kept", "negative_quantity")
    assert ledger.usages == 0
    events[1]["data"]["quantities"]["input_tokens"] = 2
    [done] = replay(conn, [number], Attempt("replay", correction=json.dumps([*events, payment("acme", "1")]).encode()))
    assert done.result == "booked"
    assert ledger.balance("acme") == "0.999997"
    [done] = replay(conn, [quarantined(b"\xff", "bad_encoding")], Attempt("replay", correction=b"[]"))
    assert done.result == "kept"
    assert "Dismiss" in done.detail


def test_dismissed_with_a_reason_and_logged(conn, quarantined):
    number = quarantined(b"null", "not_an_object")
    for blank in ("", " "):
        with pytest.raises(ValueError, match="why"):
            quarantine.dismiss(conn, number, by="ada", note=blank)
    entry = quarantine.dismiss(conn, number, by="ada", note="a test of ours")
    assert (entry.resolution, entry.resolved_by, entry.resolution_note) == ("dismissed", "ada", "a test of ours")
    [action] = quarantine.actions(conn, number)
    assert (action.action, action.result, action.note, action.done_by) == (
        "dismiss",
        "dismissed",
        "a test of ours",
        "ada",
    )
    with pytest.raises(LookupError, match="resolved before"):
        quarantine.dismiss(conn, number, by="bob", note="again")
    assert len(quarantine.actions(conn, number)) == 1


def test_what_waited_for_a_price_is_logged_too(conn, quarantined, priced_url, ledger: Ledger):
    numbers = [quarantined(usage("acme", 10, model="new", event_id="x"), "price_missing")]
    numbers.append(quarantined(usage("acme", 11, model="new", event_id="x"), "price_missing"))
    set_prices(priced_url, "new")
    assert replay_waiting(conn, lambda *_: None, book=load_book(conn)) == 2
    assert [tried(conn, number)[0][1:3] for number in numbers] == [("booked", None), ("kept", "id_conflict")]
    assert (ledger.usages, ledger.quarantined()) == (1, {"id_conflict": 1})


def test_the_log_cannot_be_changed(conn, quarantined):
    number = quarantined(b"null", "not_an_object")
    quarantine.dismiss(conn, number, by="ada", note="why")
    for change in ("UPDATE {} SET done_by = 'eve'", "DELETE FROM {}", "TRUNCATE {}"):
        with pytest.raises(psycopg.errors.RestrictViolation):
            conn.execute(change.format("taximeter.quarantine_actions"))
    columns = "entry_id action result reason detail note correction done_by done_at"
    found = conn.execute("SELECT * FROM taximeter.quarantine_history").description
    assert " ".join(column.name for column in found) == columns


@pytest.mark.parametrize(
    ("event", "changes", "drops", "expected"),
    [
        (b'{"id": 1, "data": {"a": [1.10]}}', ["id=7"], [], b'{"id":"7","data":{"a": [1.10]}}'),
        (b'{"id":"a","id":"b","x":1}', ["id=c"], [], b'{"id":"c","x":1}'),
        (
            b'{"data":{"quantities":{"t":-1,"u":2}}}',
            ["data.quantities.t=1"],
            [],
            b'{"data":{"quantities":{"t":1,"u":2}}}',
        ),
        (b"{}", ["data.quantities.a.b=0.5"], [], b'{"data":{"quantities":{"a.b":0.5}}}'),
        (b'{"data":{"input":NaN,"tool":"t"}}', [], ["data.input"], b'{"data":{"tool":"t"}}'),
        (b'{"data":{"input":' + b"[" * 99_999 + b"]" * 99_999 + b"}}", [], ["data.input"], b'{"data":{}}'),
        (b'{"d\\u0061ta":{"tool":1}}', ["data.tool=x=y"], [], b'{"data":{"tool":"x=y"}}'),
        (b'{"specversion":1}', ["specversion=1.0"], [], b'{"specversion":"1.0"}'),
        (b"{}", ['data.tool="chat"', "data.metadata={}"], [], b'{"data":{"tool":"chat","metadata":{}}}'),
        (b"{}", [], ["data.quantities.x", "y"], b"{}"),
    ],
)
def test_members_are_set_and_all_else_stays_byte_for_byte(event: bytes, changes, drops, expected: bytes):
    assert corrected(event, changes, drops) == expected


@pytest.mark.parametrize("event", [b"", b"null", b"[1]", b'{"a":1', b'{"a":1}}', b'{"a":1,}', b"{1:2}", b'{"a" 1}'])
def test_what_cannot_be_cut_needs_a_file(event: bytes):
    with pytest.raises(CorrectionError, match="--with FILE"):
        corrected(event, ["id=x"])


@pytest.mark.parametrize("change", ["id", "=x", "data.=1", "data..x=1"])
def test_a_malformed_change_is_refused(change: str):
    with pytest.raises(CorrectionError):
        corrected(b"{}", [change])
