"""An audit that cannot fail is none: every kind of fault is made here, by someone who may switch the triggers off."""

from __future__ import annotations

import psycopg
import pytest

from taximeter_db import connect, ledger, verify_chunks
from taximeter_db.verify import verify


@pytest.fixture
def booked(conn, usage, payment):
    ledger.book(conn, [], [payment("a", amount=50), payment("b", amount=50)])
    ledger.book(conn, [usage(name, cost=5) for name in "aabbc"])
    ledger.book(conn, [], [payment("a", amount=1)])
    ledger.book(conn, [usage("a", cost=5)])
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
        ("DELETE FROM taximeter.usage_keys WHERE workspace_id = 'c'", "keys", ""),
    ],
)
def test_each_kind_of_fault_is_found_and_named(booked, tampering: str, kind: str, workspace_id: str):
    booked.execute(tampering)
    report = verify(booked)
    assert not report.ok
    assert (report.faults[0].kind, report.faults[0].workspace_id) == (kind, workspace_id)
    assert report.faults[0].sentence.startswith(workspace_id)


def test_a_wrong_counter_is_not_called_a_wrong_log(booked):
    booked.execute("UPDATE taximeter.workspaces SET usage_count = usage_count + 5 WHERE workspace_id = 'c'")
    report = verify(booked)
    keys = report.faults[-1]
    assert (keys.kind, keys.computed, keys.stored) == ("keys", str(report.usages + 5), str(report.usages))
    assert "counters" in keys.sentence


def test_logs_without_a_workspace_are_told_apart(booked):
    booked.execute("DELETE FROM taximeter.workspaces WHERE workspace_id IN ('a', 'c')")
    report = verify(booked)
    orphans = [("a", "orphan"), ("c", "orphan")]
    assert [(fault.workspace_id, fault.kind) for fault in report.faults if fault.workspace_id] == orphans
    assert (report.usages, report.payments) == (6, 3)


def test_runs_of_workspaces_are_walked_to_the_end(booked, usage, monkeypatch):
    monkeypatch.setattr(verify_chunks, "ENTRIES_PER_CHUNK", 3)
    monkeypatch.setattr(verify_chunks, "WORKSPACES_PER_CHUNK", 2)
    ledger.book(booked, [usage(name) for name in "defgh"])
    seen = []
    report = verify(booked, progress=lambda so_far: seen.append(so_far.workspaces))
    assert report.ok
    assert report.workspaces == seen[-1] == 8
    assert len(seen) > 3


def test_it_looks_at_one_snapshot_while_bookings_go_on(booked, database_url, usage):
    def book_more(_report) -> None:
        with connect.booking_connection(database_url) as other:
            ledger.book(other, [usage(name) for name in "abcz"])

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
