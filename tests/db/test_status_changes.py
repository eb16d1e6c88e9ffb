"""Every change of status is in the log of changes, with what caused it."""

from __future__ import annotations

import datetime as dt
import random

from taximeter_db import status_changes, workspaces
from taximeter_db.ledger import booking
from taximeter_db.ledger.events import Payment
from taximeter_db.money import status_of

USD = 10**12
MINIMUM = -120_000_000_000


def _told(conn, workspace_id: str = "acme") -> list[tuple]:
    rows = status_changes.latest(conn, workspace_id)[::-1]
    return [(row.before, row.after, row.balance, row.cause, row.cause_id, row.amount, row.entry) for row in rows]


def test_the_event_that_moved_the_status_is_named_within_its_batch(conn, usage):
    batch = [
        usage(event_id=name, cost=cost) for name, cost in [("a", 0), ("b", 1), ("c", -MINIMUM - 1), ("d", 1), ("e", 1)]
    ]
    booking.book(conn, batch)
    assert _told(conn) == [
        ("sufficient", "low", -1, "usage", "b", -1, 2),
        ("low", "insufficient", MINIMUM - 1, "usage", "d", -1, 4),
    ]
    found = status_changes.switched_off_by(conn, "acme")
    assert found is not None
    assert (found.cause_seq, found.tool, found.flipped) == (4, "chat", True)
    recorded = conn.execute("SELECT recorded_at FROM taximeter.usages WHERE seq = 4").fetchone()[0]
    assert found.changed_at == recorded


def test_payments_of_one_batch_may_switch_off_and_on(conn, payment):
    steps = [("p1", USD, "top_up"), ("p2", -2 * USD, "adjustment"), ("p3", 3 * USD, "promo")]
    booking.book(conn, [], [payment(payment_id=name, amount=amount, kind=kind) for name, amount, kind in steps])
    assert _told(conn) == [
        ("sufficient", "insufficient", -USD, "payment", "p2", -2 * USD, 2),
        ("insufficient", "sufficient", 2 * USD, "payment", "p3", 3 * USD, 3),
    ]


def test_limits_change_the_status_too(conn, usage):
    booking.book(conn, [usage(cost=USD // 10)])
    workspaces.set_limits(conn, "acme", minimum=0, by="olga")
    workspaces.set_limits(conn, "acme", minimum=-USD, by="olga")
    assert [row[:2] + row[3:5] for row in _told(conn)[1:]] == [
        ("low", "insufficient", "settings", "olga"),
        ("insufficient", "low", "settings", "olga"),
    ]


def test_a_workspace_that_begins_disabled_was_sufficient_before(conn):
    workspaces.set_limits(conn, "new", minimum=USD, by="olga")
    assert [row[:2] for row in _told(conn, "new")] == [("sufficient", "insufficient")]
    workspaces.set_limits(conn, "calm", minimum=-USD)
    assert _told(conn, "calm") == []


def test_a_repeated_batch_writes_nothing_again(conn, usage):
    batch = [usage(cost=USD)]
    booking.book(conn, batch)
    booking.book(conn, batch)
    assert len(_told(conn)) == 1


def test_history_read_from_the_log_is_the_history_of_the_changes(conn, usage, payment):
    """Random batches; the changes must be those found by walking through the whole log by entry."""
    rng = random.Random(7)
    names = ["acme", "beta"]
    for _ in range(40):
        if rng.random() < 0.6:
            booking.book(
                conn, [usage(rng.choice(names), cost=rng.randrange(USD // 20)) for _ in range(rng.randrange(1, 9))]
            )
        else:
            batch: list[Payment] = []
            for _ in range(rng.randrange(1, 4)):
                taken = rng.random() < 0.3
                amount = rng.randrange(1, USD // 5)
                kind = "adjustment" if taken else "top_up"
                batch.append(payment(rng.choice(names), amount=-amount if taken else amount, kind=kind))
            booking.book(conn, [], batch)
    changes = 0
    for name in names:
        log = conn.execute(
            "SELECT entry, (balance_after * 1000000000000)::bigint FROM ("
            "SELECT entry, balance_after FROM taximeter.usages WHERE workspace_id = %(name)s UNION ALL "
            "SELECT entry, balance_after FROM taximeter.payments WHERE workspace_id = %(name)s) AS log ORDER BY entry",
            {"name": name},
        ).fetchall()
        expected, status = [], "sufficient"
        for entry, balance in log:
            after = status_of(balance, MINIMUM, 0)
            if after != status:
                expected.append((status, after, balance, entry))
            status = after
        told = [(before, after, balance, entry) for before, after, balance, *_, entry in _told(conn, name)]
        assert told == expected
        changes += len(expected)
    assert changes > 10


def test_periods_and_pages(conn, payment):
    for number in range(6):
        booking.book(conn, [], [payment(amount=USD if number % 2 else -USD, kind="adjustment")])
    every = status_changes.latest(conn, "acme")
    assert len(every) == 6
    assert status_changes.latest(conn, "acme", limit=2) == every[:2]
    assert status_changes.latest(conn, "acme", before=every[1].id, limit=2) == every[2:4]
    assert status_changes.between(conn, "acme", every[3].changed_at, every[1].changed_at) == every[2:4]
    hour = dt.timedelta(hours=1)
    assert status_changes.kept_since(conn) < every[-1].changed_at
    assert status_changes.between(conn, "acme", every[-1].changed_at - hour, every[0].changed_at + hour) == every
    assert status_changes.latest(conn, "nobody") == []
    assert status_changes.switched_off_by(conn, "nobody") is None
