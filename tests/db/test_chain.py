"""The hash chain: what someone does who may switch the triggers off and keeps the books balanced is found all the same."""

from __future__ import annotations

import hashlib
import re
import struct
from decimal import Decimal

import psycopg
import pytest

from taximeter_db import connect, migrate
from taximeter_db.audit import verify_chunks
from taximeter_db.audit.verify import Fault, verify
from taximeter_db.ledger import booking

TABLES = ("usages", "payments", "workspaces", "usage_keys")


@pytest.fixture
def booked(conn, usage, payment):
    """Workspace "a": entries 1 | 2-4 | 5 | 6-7 | 8 | 9-11; "b": 1 | 2. A bar is a transaction. Triggers are off."""
    booking.book(conn, [], [payment("a", payment_id="p-1", amount=50)])
    booking.book(conn, [*(usage("a", f"e-{n}", cost=5) for n in range(3)), usage("b", "e-0", cost=5, model=None)])
    booking.book(
        conn, [], [payment("a", payment_id="p-2", transaction={"reference": "pi_3", "provider": "stripe"}, note="é\n")]
    )
    booking.book(conn, [usage("a", f"f-{n}", cost=7, quantities={"b": Decimal("1.50"), "a": 10**15}) for n in range(2)])
    booking.book(conn, [usage("a", "g", cost=0), usage("b", "g", provider=None, model=None)])
    labels = {"user_id": "u-17", "tags": {"team": "search", "a": "é"}, "hold_id": "h-1"}
    booking.book(conn, [usage("a", "i", **labels), usage("a", "j"), usage("a", "k", user_id="u-17")])
    for (name,) in conn.execute(
        """SELECT relid::text FROM pg_partition_tree('taximeter.usages') UNION ALL
           VALUES ('taximeter.payments'), ('taximeter.usage_keys'), ('taximeter.workspaces')"""
    ).fetchall():
        conn.execute(f"ALTER TABLE {name} DISABLE TRIGGER USER")
    for table in TABLES:
        conn.execute(f"CREATE TABLE public.{table} AS TABLE taximeter.{table}")
    return conn


def restore(conn) -> None:
    for table in TABLES:
        conn.execute(f"DELETE FROM taximeter.{table}")
        conn.execute(f"INSERT INTO taximeter.{table} SELECT * FROM public.{table}")


# Each keeps numbers, balances and counters as they should be; what is found is the first entry, or what was booked with it.
TAMPERINGS = {
    "a quantity": ("UPDATE usages SET quantities = '{\"input_tokens\":1}' WHERE event_id = 'e-1'", (2, 4)),
    "the text of a quantity": ("UPDATE usages SET quantities = (quantities::text || ' ')::json WHERE seq = 4", (6, 7)),
    "an event id": ("UPDATE usages SET event_id = 'e-9' WHERE event_id = 'e-0' AND workspace_id = 'a'", (2, 4)),
    "a tool": ("UPDATE usages SET tool = 'other' WHERE event_id = 'f-0'", (6, 7)),
    "a model to none": ("UPDATE usages SET model = NULL WHERE event_id = 'f-1'", (6, 7)),
    "a provider and a model swapped": (
        "UPDATE usages SET provider = model, model = provider WHERE event_id = 'e-2'",
        (2, 4),
    ),
    "a user": ("UPDATE usages SET user_id = 'u-18' WHERE event_id = 'k'", (9, 11)),
    "a user taken away": ("UPDATE usages SET user_id = NULL WHERE event_id = 'k'", (9, 11)),
    "a user given": ("UPDATE usages SET user_id = 'u-17' WHERE event_id = 'j'", (9, 11)),
    "a user given to a usage of before": ("UPDATE usages SET user_id = 'u-17' WHERE event_id = 'e-1'", (2, 4)),
    "a user that becomes a hold": ("UPDATE usages SET hold_id = user_id, user_id = NULL WHERE event_id = 'k'", (9, 11)),
    "a tag": ('UPDATE usages SET tags = \'{"a":"é","team":"other"}\' WHERE event_id = \'i\'', (9, 11)),
    "tags taken away": ("UPDATE usages SET tags = NULL WHERE event_id = 'i'", (9, 11)),
    "a hold": ("UPDATE usages SET hold_id = 'h-2' WHERE event_id = 'i'", (9, 11)),
    "a price version": ("UPDATE usages SET price_version = 7 WHERE event_id = 'f-1'", (6, 7)),
    "when it happened": (
        "UPDATE usages SET occurred_at = occurred_at - interval '1 microsecond' WHERE event_id = 'f-1'",
        (6, 7),
    ),
    "what was said in it": ("UPDATE usages SET fingerprint = gen_random_uuid() WHERE event_id = 'e-1'", (2, 4)),
    "when it was booked": (
        "UPDATE usages SET recorded_at = recorded_at + interval '1 microsecond' WHERE workspace_id = 'a' AND seq IN (4, 5)",
        (6, 7),
    ),
    "two rows of a batch swapped": (
        """UPDATE usages SET (event_id, quantities, fingerprint, cost, occurred_at) =
           (SELECT o.event_id, o.quantities, o.fingerprint, o.cost, o.occurred_at FROM public.usages AS o
            WHERE o.workspace_id = 'a' AND o.seq = 3 - usages.seq) WHERE workspace_id = 'a' AND seq IN (1, 2)""",
        (2, 4),
    ),
    "two batches swapped": (
        """UPDATE usages SET (event_id, quantities, fingerprint, cost) =
           (SELECT o.event_id, o.quantities, o.fingerprint, o.cost FROM public.usages AS o
            WHERE o.workspace_id = 'a' AND o.seq = 5 - usages.seq) WHERE workspace_id = 'a' AND seq IN (2, 3)""",
        (2, 4),
    ),
    "a cost moved to another entry of the batch, balances corrected": (
        """UPDATE usages SET cost = cost + CASE seq WHEN 1 THEN 1 ELSE -1 END * 0.000000000001,
                             balance_after = balance_after - CASE seq WHEN 1 THEN 0.000000000001 ELSE 0 END
           WHERE workspace_id = 'a' AND seq IN (1, 2)""",
        (2, 4),
    ),
    "a cost, every balance after it and the counters": (
        """UPDATE usages SET cost = cost - CASE seq WHEN 4 THEN 0.000000000007 ELSE 0 END,
                             balance_after = balance_after + 0.000000000007 WHERE workspace_id = 'a' AND seq >= 4;
           UPDATE workspaces SET usage_cost = usage_cost - 0.000000000007, balance = balance + 0.000000000007
           WHERE workspace_id = 'a'""",
        (6, 7),
    ),
    "a payment's amount with all that follows": (
        """UPDATE payments SET amount = amount + 1 WHERE payment_id = 'p-1';
           UPDATE payments SET balance_after = balance_after + 1;
           UPDATE usages SET balance_after = balance_after + 1 WHERE workspace_id = 'a';
           UPDATE workspaces SET payment_total = payment_total + 1, balance = balance + 1 WHERE workspace_id = 'a'""",
        (1, 1),
    ),
    "a payment's kind": ("UPDATE payments SET kind = 'promo' WHERE payment_id = 'p-2'", (5, 5)),
    "a payment's transaction": (
        "UPDATE payments SET transaction = transaction || '{\"reference\": \"pi_4\"}' WHERE payment_id = 'p-2'",
        (5, 5),
    ),
    "a payment's note": ("UPDATE payments SET note = NULL WHERE payment_id = 'p-2'", (5, 5)),
    "a payment's id": ("UPDATE payments SET payment_id = 'p-3' WHERE payment_id = 'p-2'", (5, 5)),
    "a link": ("UPDATE usages SET link = sha256('x') WHERE event_id = 'f-1'", (6, 7)),
    "a link taken away": ("UPDATE usages SET link = NULL WHERE event_id = 'f-1'", (6, 7)),
    "all links taken away": (
        "UPDATE usages SET link = NULL; UPDATE payments SET link = NULL; UPDATE workspaces SET chain = ''",
        (1, 1),
    ),
    "a usage from another workspace": (
        """UPDATE usages SET (event_id, quantities, fingerprint, occurred_at, cost) =
           (SELECT o.event_id, o.quantities, o.fingerprint, o.occurred_at, usages.cost FROM public.usages AS o
            WHERE o.workspace_id = 'b' AND o.seq = 1) WHERE workspace_id = 'a' AND seq = 2""",
        (2, 4),
    ),
}


def test_nothing_can_be_changed_unseen(booked):
    assert verify(booked).ok
    booked.execute("SET search_path = taximeter, pg_catalog")
    for what, (tampering, (first, last)) in TAMPERINGS.items():
        for statement in re.split(r";\s+", tampering):
            assert booked.execute(statement).rowcount, what
        faults = [fault for fault in verify(booked).faults if fault.workspace_id == "a" and fault.kind != "twice"]
        assert faults == [Fault("a", "chain", first, upto=last)], what
        assert f"entries {first} to {last}" in faults[0].sentence
        restore(booked)
    assert verify(booked).ok


def test_a_tail_cut_off_with_counters_and_balance_rolled_back_is_found(booked):
    booked.execute("DELETE FROM taximeter.usages WHERE workspace_id = 'a' AND seq >= 4")
    booked.execute("DELETE FROM taximeter.usage_keys WHERE workspace_id = 'a' AND NOT EXISTS"
                   " (SELECT FROM taximeter.usages AS u WHERE u.workspace_id = 'a' AND u.fingerprint = usage_keys.fingerprint)")  # fmt: skip
    booked.execute(
        """UPDATE taximeter.workspaces SET usage_count = 3, usage_cost = usage_cost - 0.000000003014,
                  balance = balance + 0.000000003014 WHERE workspace_id = 'a'"""
    )
    faults = verify(booked).faults
    assert [(fault.kind, fault.workspace_id) for fault in faults] == [("end", "a")]
    assert "last entries of the log are missing" in faults[0].sentence


def test_large_workspaces_are_walked_in_stretches_on_several_connections(booked, database_url, usage, monkeypatch):
    monkeypatch.setattr(verify_chunks, "ENTRIES_PER_CHUNK", 2)
    for number in range(6):
        booking.book(booked, [usage("a", f"h-{number}-{part}") for part in range(number + 1)])
    booking.book(booked, [usage("c")])
    assert len(list(verify_chunks.cut(booked))) > 8
    helpers = [connect.connect(database_url) for _ in range(2)]
    try:
        report = verify(booked, helpers=helpers)
        assert (report.ok, report.workspaces, report.usages, report.payments) == (True, 3, 9 + 2 + 21 + 1, 2)
        assert report.entries_all == 35
        booked.execute("UPDATE taximeter.usages SET tool = 'x' WHERE event_id = 'h-3-1'")
        assert [fault.kind for fault in verify(booked, helpers=helpers).faults] == ["chain"]
        booked.execute("UPDATE taximeter.usages SET tool = 'chat' WHERE event_id = 'h-3-1'")
        booked.execute("UPDATE taximeter.workspaces SET chain = sha256('x') WHERE workspace_id = 'a'")
        assert [fault.kind for fault in verify(booked, helpers=helpers).faults] == ["end"]
        booked.execute("UPDATE taximeter.workspaces SET usage_count = 99 WHERE workspace_id = 'a'")
        assert [fault.kind for fault in verify(booked, helpers=helpers).faults] == ["total"]
    finally:
        for helper in helpers:
            helper.close()


def test_entries_of_unknown_workspaces_are_found_wherever_their_id_lies(booked, monkeypatch):
    monkeypatch.setattr(verify_chunks, "ENTRIES_PER_CHUNK", 2)
    booked.execute(
        """INSERT INTO taximeter.usages SELECT (u).* FROM (
           SELECT jsonb_populate_record(u, jsonb_build_object('workspace_id', id)) AS u
           FROM taximeter.usages AS u, unnest(ARRAY['!', 'a!', 'a0', 'é']) AS id WHERE event_id = 'f-1') AS o"""
    )
    orphans = [fault.workspace_id for fault in verify(booked).faults if fault.kind == "orphan"]
    assert sorted(orphans) == ["!", "a!", "a0", "é"]


def test_a_batch_that_books_nothing_moves_no_chain(conn, usage):
    batch = [usage("a"), usage("a")]
    booking.book(conn, batch)
    before = conn.execute("SELECT chain, updated_at FROM taximeter.workspaces").fetchone()
    assert booking.book(conn, batch).usages_duplicate == 2
    after = conn.execute("SELECT chain, updated_at FROM taximeter.workspaces").fetchone()
    assert before[0] == after[0] != b""
    assert before[1] < after[1]
    assert verify(conn).ok


def test_recorded_at_moves_forward_though_the_clock_went_back(conn, usage):
    booking.book(conn, [usage("a")])
    conn.execute("UPDATE taximeter.workspaces SET updated_at = updated_at + interval '1 hour'")
    booking.book(conn, [usage("a")])
    booking.book(conn, [usage("a")])
    times = [row[0] for row in conn.execute("SELECT recorded_at FROM taximeter.usages ORDER BY seq")]
    assert (times[2] - times[1]).total_seconds() * 1_000_000 == 1
    assert times[1] > times[0]
    assert verify(conn).ok


@pytest.mark.parametrize("labels", [{}, {"user_id": "u-17"}, {"tags": {"b": "é", "a": "x"}, "hold_id": "h"}])
def test_the_link_is_what_the_decisions_say(conn, usage, labels):
    """Made here from the documented formula alone, so that other programs can check a chain too."""
    given = usage(
        "a", cost=15 * 10**11, occurred_at=946_684_800_000_000, model=None, quantities={"images": 1}, **labels
    )
    booking.book(conn, [given])

    def column(oid: int, value: bytes | None) -> bytes:
        return struct.pack(">ii", oid, -1) if value is None else struct.pack(">ii", oid, len(value)) + value

    more = [
        column(25, b"u-17" if "user_id" in labels else None),
        column(114, '{"a":"x","b":"é"}'.encode() if "tags" in labels else None),
        column(25, b"h" if "hold_id" in labels else None),
    ] if labels else []  # fmt: skip
    content = struct.pack(">i", 9 + len(more)) + b"".join([
        column(20, struct.pack(">q", 1)), column(1184, struct.pack(">q", 0)), column(2950, given.fingerprint),
        column(1700, struct.pack(">HhHH2H", 2, 0, 0, 12, 1, 5000)), column(25, b"chat"), column(25, b"openai"),
        column(25, None), column(25, given.event_id.encode()), column(114, b'{"images":1}'),
        *more,
    ])  # fmt: skip
    digest = hashlib.sha256(struct.pack(">i", 1) + b"a" + content).digest()
    link, micros, chain = conn.execute(
        """SELECT u.link, (extract(epoch FROM recorded_at) * 1000000)::bigint - 946684800000000, chain
           FROM taximeter.usages AS u, taximeter.workspaces AS w"""
    ).fetchone()
    assert link == chain == hashlib.sha256(b"" + digest + struct.pack(">qqq", 1, 0, micros)).digest()


def test_a_ledger_from_before_begins_its_chains_where_it_stands(empty_database_url, usage, payment):
    migrate.upgrade(empty_database_url, "0007")
    with psycopg.connect(empty_database_url, autocommit=True) as old:
        old.execute(
            """INSERT INTO taximeter.workspaces (workspace_id, balance, usage_cost, payment_total, usage_count,
                                                 payment_count) VALUES ('old', 8, 2, 10, 2, 1), ('unused', 0, 0, 0, 0, 0);
               INSERT INTO taximeter.payments (workspace_id, payment_id, seq, entry, kind, amount, balance_after,
                                               fingerprint, occurred_at, recorded_at)
               VALUES ('old', 'p', 1, 1, 'top_up', 10, 10, gen_random_uuid(), now(), now());
               INSERT INTO taximeter.usages (seq, entry, price_version, occurred_at, recorded_at, cost, balance_after,
                                             workspace_id, event_id, tool, quantities)
               SELECT n, n + 1, 1, now(), now() + n * interval '1 us', 1, 10 - n, 'old', md5(n::text)::uuid, 'chat', '{"b": 1.50, "a": 2}'
               FROM generate_series(1, 2) AS n;
               INSERT INTO taximeter.usage_keys (event_key, workspace_id, fingerprint)
               SELECT md5(n::text)::uuid, 'old', gen_random_uuid() FROM generate_series(1, 2) AS n"""
        )
        migrate.upgrade(empty_database_url)
        assert old.execute("SELECT quantities, quantities->>'b' FROM taximeter.usage_log").fetchone() == (
            {"a": 2, "b": 1.5}, "1.50",
        )  # fmt: skip
        assert old.execute(
            "SELECT workspace_id, usage_count, payment_count FROM taximeter.chain_starts"
        ).fetchall() == [("old", 2, 1)]
        assert verify(old).ok
    with connect.booking_connection(empty_database_url) as conn:
        booking.book(conn, [usage("old"), usage("new")], [payment("old")])
        assert verify(conn).ok
        for (name,) in conn.execute("SELECT relid::text FROM pg_partition_tree('taximeter.usages')").fetchall():
            conn.execute(f"ALTER TABLE {name} DISABLE TRIGGER USER")
        conn.execute("UPDATE taximeter.usages SET tool = 'x' WHERE seq = 3")
        assert verify(conn).faults == [Fault("old", "chain", 5, upto=5)]
        conn.execute("UPDATE taximeter.usages SET tool = 'chat' WHERE seq = 3")
        conn.execute("UPDATE taximeter.usages SET cost = 2, balance_after = balance_after - 1 WHERE seq = 2")
        assert verify(conn).faults[0].kind == "running"
