"""A checkpoint kept elsewhere finds what a recomputed chain cannot show."""

from __future__ import annotations

import pytest

from taximeter_db.audit import checkpoint, verify_chunks
from taximeter_db.audit.verify import verify
from taximeter_db.errors import CheckpointError
from taximeter_db.ledger import booking

KEY = b"a secret of sixteen bytes or more"


@pytest.fixture
def booked(conn, usage, payment):
    booking.book(conn, [], [payment("a"), payment("b")])
    for number in range(4):
        booking.book(conn, [usage("a", f"e-{number}-{part}") for part in range(3)] + [usage("b", f"e-{number}")])
    for (name,) in conn.execute("SELECT relid::text FROM pg_partition_tree('taximeter.usages')").fetchall():
        conn.execute(f"ALTER TABLE {name} DISABLE TRIGGER USER")
    return conn


def rewrite_chain(conn, workspace_id: str) -> None:
    """What an attacker with every right does after a change: every link recomputed, in order."""
    entries = conn.execute(
        """SELECT recorded_at, max(entry) AS last,
                  taximeter.batch_digest(workspace_id, string_agg(content, ''::bytea ORDER BY entry)),
                  max(usages) + (SELECT count(*) FROM taximeter.usages AS u WHERE u.workspace_id = e.workspace_id
                                 AND u.recorded_at < e.recorded_at),
                  max(payments) + (SELECT count(*) FROM taximeter.payments AS p WHERE p.workspace_id = e.workspace_id
                                   AND p.recorded_at < e.recorded_at)
           FROM (SELECT workspace_id, recorded_at, entry, count(*) OVER (PARTITION BY recorded_at) AS usages, 0 AS payments,
                        taximeter.usage_content(price_version, occurred_at, fingerprint, cost, tool, provider, model,
                                                event_id, quantities) AS content
                 FROM taximeter.usages WHERE workspace_id = %(id)s
                 UNION ALL
                 SELECT workspace_id, recorded_at, entry, 0, 1,
                        taximeter.payment_content(payment_id, kind, amount, transaction, note, fingerprint, occurred_at)
                 FROM taximeter.payments WHERE workspace_id = %(id)s) AS e
           GROUP BY workspace_id, recorded_at ORDER BY recorded_at""",
        {"id": workspace_id},
    ).fetchall()
    chain = b""
    for recorded_at, last, digest, usages, payments in entries:
        (chain,) = conn.execute(
            "SELECT taximeter.chain_link(%s, %s, %s, %s, %s)", [chain, digest, usages, payments, recorded_at]
        ).fetchone()
        values = [chain, workspace_id, last]
        conn.execute("UPDATE taximeter.usages SET link = %s WHERE workspace_id = %s AND entry = %s", values)
    conn.execute("UPDATE taximeter.workspaces SET chain = %s WHERE workspace_id = %s", [chain, workspace_id])


def both(conn, known) -> tuple[list, list]:
    found = [verify(conn, checkpoint=known, since=since).faults for since in (False, True)]
    return tuple([(fault.workspace_id, fault.kind) for fault in faults] for faults in found)


def take(conn) -> checkpoint.Checkpoint:
    return checkpoint.read(list(checkpoint.make(conn, KEY)), KEY)


def test_a_log_that_only_grew_agrees(booked, usage, payment, monkeypatch):
    monkeypatch.setattr(verify_chunks, "ENTRIES_PER_CHUNK", 2)
    known = take(booked)
    assert verify(booked, checkpoint=known, since=True).usages == 0
    booking.book(booked, [usage("a"), usage("new"), usage("other")], [payment("b"), payment("later")])
    assert both(booked, known) == ([], [])
    assert verify(booked, checkpoint=known, since=True).usages == 3
    booked.execute("UPDATE taximeter.usages SET tool = 'x' WHERE workspace_id = 'new'")
    assert both(booked, known) == ([("new", "chain")], [("new", "chain")])


def test_a_chain_rewritten_whole_is_found_with_the_checkpoint_alone(booked, usage):
    known = take(booked)
    booking.book(booked, [usage("a")])
    booked.execute("UPDATE taximeter.usages SET tool = 'x' WHERE workspace_id = 'a' AND seq = 11")
    rewrite_chain(booked, "a")
    assert verify(booked).ok
    # what came after the checkpoint follows on another link now
    assert both(booked, known) == ([("a", "checkpoint")], [("a", "checkpoint"), ("a", "chain")])
    entry = known.starts["a"].usages + known.starts["a"].payments
    assert f"up to entry {entry}" in verify(booked, checkpoint=known).faults[0].sentence


def test_a_tail_cut_off_without_a_trace_is_found_with_the_checkpoint_alone(booked):
    known = take(booked)
    booked.execute("ALTER TABLE taximeter.usage_keys DISABLE TRIGGER USER")
    booked.execute(
        """DELETE FROM taximeter.usage_keys WHERE workspace_id = 'a' AND fingerprint IN
           (SELECT fingerprint FROM taximeter.usages WHERE workspace_id = 'a' AND seq > 9)"""
    )
    booked.execute("DELETE FROM taximeter.usages WHERE workspace_id = 'a' AND seq > 9")
    booked.execute(
        """UPDATE taximeter.workspaces SET usage_count = 9, usage_cost = 0.000000009, balance = payment_total - 0.000000009
           WHERE workspace_id = 'a'"""
    )
    rewrite_chain(booked, "a")
    assert verify(booked).ok
    whole, since = both(booked, known)
    assert whole == [("a", "checkpoint")]
    assert ("a", "checkpoint") in since


def test_a_workspace_that_vanished_is_found(booked):
    known = take(booked)
    for table in ("payments", "usage_keys", "workspaces"):
        booked.execute(f"ALTER TABLE taximeter.{table} DISABLE TRIGGER USER")
    for table in ("usages", "payments", "usage_keys", "workspaces"):
        booked.execute(f"DELETE FROM taximeter.{table} WHERE workspace_id = 'b'")
    assert verify(booked).ok
    assert both(booked, known) == ([("b", "checkpoint")], [("b", "checkpoint")])


def test_a_checkpoint_is_believed_only_with_its_key_and_whole(booked):
    lines = list(checkpoint.make(booked, KEY))
    assert checkpoint.read(lines, KEY).starts["a"].usages == 12
    for broken in (
        lines[:-1],
        lines[1:],
        [],
        [b"\n"],
        [*lines[:2], *lines[3:]],
        [lines[0].replace(b"2", b"3"), *lines[1:]],
    ):
        with pytest.raises(CheckpointError):
            checkpoint.read(broken, KEY)
    with pytest.raises(CheckpointError, match="signed with another key"):
        checkpoint.read(lines, KEY[::-1])
    with pytest.raises(CheckpointError, match="at least 16 bytes"):
        list(checkpoint.make(booked, b"short"))
