"""The database itself refuses to change or delete what was booked."""

from __future__ import annotations

import psycopg
import pytest

from taximeter_db.ledger import booking
from taximeter_db.ledger.events import Rejected

LOGS = ["usages", "usage_payloads", "usage_keys", "payments", "status_changes"]


@pytest.fixture
def booked(conn, usage, payment):
    rejected = Rejected("bad_json", "Nothing to see.", b"{", None)
    booking.book(conn, [usage(payload=b'{"input":"hi"}', cost=2 * 10**12)], [payment()], [rejected])
    return conn


def _partitions(conn) -> list[str]:
    return [
        row[0] for row in conn.execute("SELECT relid::text FROM pg_partition_tree('taximeter.usages') WHERE isleaf")
    ]


@pytest.mark.parametrize("table", LOGS)
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE taximeter.{} SET workspace_id = 'thief'",
        "DELETE FROM taximeter.{}",
        "TRUNCATE taximeter.{}",
        "UPDATE taximeter.{} SET workspace_id = 'thief' WHERE false",
    ],
)
def test_logs_refuse(booked, table: str, statement: str):
    before = booked.execute(f"SELECT * FROM taximeter.{table}").fetchall()
    assert before
    with pytest.raises(psycopg.errors.RestrictViolation, match=f"taximeter.{table} is append-only"):
        booked.execute(statement.format(table))
    assert booked.execute(f"SELECT * FROM taximeter.{table}").fetchall() == before


@pytest.mark.parametrize("statement", ["UPDATE {} SET cost = 0", "DELETE FROM {}", "TRUNCATE {}"])
def test_partitions_refuse_when_named_directly(booked, statement: str):
    partitions = _partitions(booked)
    assert len(partitions) >= 2
    for partition in partitions:
        with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
            booked.execute(statement.format(partition))


@pytest.mark.parametrize(
    "statement", ["DELETE FROM {}", "DELETE FROM {} WHERE false", "TRUNCATE {}", "TRUNCATE {} CASCADE"]
)
def test_a_workspace_stays(booked, statement: str):
    """With its row would go its balance, its numbers and the end of its chain; the next event would begin from nothing."""
    with pytest.raises(psycopg.errors.RestrictViolation):
        booked.execute(statement.format("taximeter.workspaces"))
    assert booked.execute("SELECT count(*) FROM taximeter.workspaces").fetchone() != (0,)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE taximeter.quarantine SET event = ''",
        "UPDATE taximeter.quarantine SET reason = 'none', resolved_at = now()",
        "DELETE FROM taximeter.quarantine",
        "TRUNCATE taximeter.quarantine",
    ],
)
def test_quarantine_refuses(booked, statement: str):
    with pytest.raises(psycopg.errors.RestrictViolation):
        booked.execute(statement)


def test_a_resolution_is_final(booked):
    booked.execute("UPDATE taximeter.quarantine SET resolved_at = now(), resolution = 'dismissed'")
    with pytest.raises(psycopg.errors.RestrictViolation):
        booked.execute("UPDATE taximeter.quarantine SET resolution = 'booked'")


@pytest.mark.parametrize("amount", ["'NaN'", "-1", "0"])
def test_payments_must_be_sane_whoever_writes_them(booked, amount: str):
    with pytest.raises(psycopg.errors.CheckViolation):
        booked.execute(
            f"""INSERT INTO taximeter.payments
                SELECT workspace_id, 'other', 2, 9, kind, {amount}, balance_after, transaction, note, fingerprint,
                       occurred_at, recorded_at FROM taximeter.payments"""
        )


@pytest.mark.parametrize("change", ["balance = balance + 1", "balance = 'NaN'", "usage_cost = 'NaN'"])
def test_a_balance_that_does_not_add_up_is_refused(booked, change: str):
    with pytest.raises(psycopg.errors.CheckViolation):
        booked.execute(f"UPDATE taximeter.workspaces SET {change}")
