"""An audit that cannot fail is none: every kind of fault is made here, by someone who may switch the triggers off."""

from __future__ import annotations

import uuid

import msgspec
import psycopg
import pytest

from taximeter_db import connect
from taximeter_db.audit import checkpoint, verify_chunks
from taximeter_db.audit.verify import verify
from taximeter_db.ledger import booking
from taximeter_db.ledger.events import event_key

KEY = b"a secret of sixteen bytes or more"


@pytest.fixture
def booked(conn, usage, payment):
    booking.book(conn, [], [payment("a", amount=50), payment("b", amount=50)])
    booking.book(conn, [usage(name, cost=5) for name in "aabbc"])
    booking.book(conn, [], [payment("a", amount=1)])
    booking.book(conn, [usage("a", cost=5)])
    for (name,) in conn.execute(
        """SELECT relid::text FROM pg_partition_tree('taximeter.usages') UNION ALL
           VALUES ('taximeter.payments'), ('taximeter.usage_keys'), ('taximeter.workspaces')"""
    ).fetchall():
        conn.execute(f"ALTER TABLE {name} DISABLE TRIGGER USER")
    return conn


def test_a_sound_ledger(booked):
    report = verify(booked)
    assert report.ok
    assert (report.workspaces, report.usages, report.payments) == (3, 6, 3)


@pytest.mark.parametrize(
    ("tampering", "kind", "workspace_id"),
    [
        ("UPDATE taximeter.usages SET cost = 0 WHERE workspace_id = 'a' AND seq = 2", "running", "a"),
        ("UPDATE taximeter.usages SET balance_after = 0 WHERE workspace_id = 'b' AND seq = 1", "running", "b"),
        ("DELETE FROM taximeter.usages WHERE workspace_id = 'a' AND seq = 1", "gap", "a"),
        ("DELETE FROM taximeter.payments WHERE workspace_id = 'b'", "gap", "b"),
        ("DELETE FROM taximeter.usages WHERE workspace_id = 'c'", "total", "c"),
        ("UPDATE taximeter.usages SET seq = 9 WHERE workspace_id = 'b' AND seq = 2", "gap", "b"),
        (
            "UPDATE taximeter.workspaces SET payment_total = 99, balance = 99 - usage_cost WHERE workspace_id = 'b'",
            "total",
            "b",
        ),
        ("UPDATE taximeter.workspaces SET usage_count = 7 WHERE workspace_id = 'c'", "total", "c"),
        ("DELETE FROM taximeter.workspaces WHERE workspace_id = 'c'", "orphan", "c"),
        ("DELETE FROM taximeter.usage_keys WHERE workspace_id = 'c'", "keys", "c"),
        ("UPDATE taximeter.usage_keys SET event_key = gen_random_uuid() WHERE workspace_id = 'c'", "keys", "c"),
        ("UPDATE taximeter.usage_keys SET fingerprint = gen_random_uuid() WHERE workspace_id = 'c'", "keys", "c"),
        ("UPDATE taximeter.usage_keys SET workspace_id = 'd' WHERE workspace_id = 'c'", "keys", "c"),
        ("INSERT INTO taximeter.usage_keys VALUES (gen_random_uuid(), 'b', gen_random_uuid())", "keys", "b"),
    ],
)
def test_each_kind_of_fault_is_found_and_named(booked, tampering: str, kind: str, workspace_id: str):
    booked.execute(tampering)
    report = verify(booked)
    assert not report.ok
    assert (report.faults[0].kind, report.faults[0].workspace_id) == (kind, workspace_id)
    assert report.faults[0].sentence.startswith(workspace_id)


UUID_ID, HASHED_ID, UUID8_ID, LIKE_A_UUID = (
    "0199c7f2-6d0e-7a55-8f3c-2f4f8f0c9a11",
    "request 17",
    "0199c7f2-6d0e-8a55-8f3c-2f4f8f0c9a11",
    "request1-user-team-tool-searchsearch",
)


@pytest.mark.parametrize("event_id", [UUID_ID, HASHED_ID, UUID8_ID, UUID_ID.upper(), LIKE_A_UUID])
@pytest.mark.parametrize("since", [False, True])
@pytest.mark.parametrize("tampering", ["SET event_key = gen_random_uuid()", "DELETE"])
def test_an_event_whose_key_was_taken_away_and_that_was_booked_twice_is_named(
    booked, usage, event_id: str, tampering: str, since: bool
):
    booking.book(booked, [usage("a", event_id, cost=7), usage("b", event_id)])
    known = checkpoint.read(list(checkpoint.make(booked, KEY)), KEY)
    assert verify(booked, checkpoint=known, since=since).ok
    verb = "DELETE FROM taximeter.usage_keys" if tampering == "DELETE" else f"UPDATE taximeter.usage_keys {tampering}"
    booked.execute(f"{verb} WHERE workspace_id = 'a' AND event_key = %s", [uuid.UUID(bytes=event_key(event_id))])
    faults = verify(booked, checkpoint=known, since=since).faults
    assert [(fault.workspace_id, fault.kind) for fault in faults] == [("a", "keys")]
    assert booking.book(booked, [usage("a", event_id, cost=7)]).usages_booked == 1, "it is charged a second time"
    faults = verify(booked, checkpoint=known, since=since).faults
    assert [(fault.workspace_id, fault.kind) for fault in faults] == [("a", "keys"), ("a", "twice")]
    assert faults[1].stored == event_id
    assert faults[1].entry == 7


def test_keys_that_the_checkpoint_counted_are_still_there(booked, usage):
    known = checkpoint.read(list(checkpoint.make(booked, KEY)), KEY)
    booking.book(booked, [usage("a"), usage("new")])
    assert verify(booked, checkpoint=known, since=True).ok
    old = msgspec.structs.replace(known, keys=None)
    assert verify(booked, checkpoint=old, since=True).ok, "a checkpoint without keys: those of all usages are compared"
    other = msgspec.structs.replace(known, keys=msgspec.structs.replace(known.keys, keys=1))
    assert [fault.kind for fault in verify(booked, checkpoint=other, since=True).faults] == ["keys"]
    booked.execute("DELETE FROM taximeter.usage_keys WHERE workspace_id = 'c'")
    for one in (known, old):
        faults = verify(booked, checkpoint=one, since=True).faults
        assert [(fault.workspace_id, fault.kind) for fault in faults] == [("c", "keys")]


def test_a_wrong_counter_is_told_as_that_alone(booked):
    booked.execute("UPDATE taximeter.workspaces SET usage_count = usage_count + 5 WHERE workspace_id = 'c'")
    assert [(fault.kind, fault.workspace_id) for fault in verify(booked).faults] == [("total", "c")]


def test_a_detached_partition_is_said_and_not_taken_for_missing_entries(booked):
    (name,) = booked.execute("SELECT tableoid::regclass::text FROM taximeter.usages LIMIT 1").fetchone()
    booked.execute(f"ALTER TABLE taximeter.usages DETACH PARTITION {name}")
    (fault,) = verify(booked).faults
    assert fault.kind == "detached"
    assert fault.stored < fault.computed
    assert "attach its partitions" in fault.sentence


def test_logs_without_a_workspace_are_told_apart(booked):
    booked.execute("DELETE FROM taximeter.workspaces WHERE workspace_id IN ('a', 'c')")
    report = verify(booked)
    orphans = [("a", "orphan"), ("c", "orphan")]
    assert [(fault.workspace_id, fault.kind) for fault in report.faults if fault.workspace_id] == orphans
    assert (report.usages, report.payments) == (6, 3)


def test_runs_of_workspaces_are_walked_to_the_end(booked, usage, monkeypatch):
    monkeypatch.setattr(verify_chunks, "ENTRIES_PER_CHUNK", 3)
    monkeypatch.setattr(verify_chunks, "WORKSPACES_PER_CHUNK", 2)
    booking.book(booked, [usage(name) for name in "defgh"])
    seen = []
    report = verify(booked, progress=lambda so_far: seen.append(so_far.workspaces))
    assert report.ok
    assert report.workspaces == seen[-1] == 8
    assert len(seen) > 3


def test_it_looks_at_one_snapshot_while_bookings_go_on(booked, database_url, usage):
    def book_more(_report) -> None:
        with connect.booking_connection(database_url) as other:
            booking.book(other, [usage(name) for name in "abcz"])

    assert verify(booked, progress=book_more).ok
    assert booked.isolation_level is None
    assert verify(booked).ok


def test_it_changes_nothing(booked):
    with psycopg.connect(booked.info.dsn, password=booked.info.password, autocommit=True) as other:
        before = other.execute(
            "SELECT pg_current_wal_insert_lsn() IS NOT NULL, count(*) FROM taximeter.usages"
        ).fetchone()
        verify(other)
        assert before == other.execute("SELECT true, count(*) FROM taximeter.usages").fetchone()
