"""Claiming keys optimistically: the same result as the cautious way, whatever the batch holds."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

from taximeter_db import connect, workspaces
from taximeter_db.audit.verify import verify
from taximeter_db.ledger import booking
from taximeter_db.ledger.claims import OptimisticClaims
from taximeter_db.ledger.context import BookingContext
from taximeter_db.ledger.events import Policy

SEED = 20261125


class Certain(OptimisticClaims):
    """Expects a clean batch always, so that each is claimed optimistically first; a retry is cautious."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0
        self._retrying = False

    @property
    def expects_clean_batch(self) -> bool:
        return not self._retrying

    def record_clean_batch(self) -> None:
        self._retrying = False

    def record_repeat(self, *, rolled_back: bool) -> None:
        self._retrying = rolled_back
        self.failures += rolled_back


def test_a_clean_batch_is_claimed_at_once(conn, usage):
    claims = Certain()
    batch = [usage(f"w{number % 7}", cost=5) for number in range(300)]
    outcome = booking.book(conn, batch, context=BookingContext(claims=claims))
    assert (outcome.usages_booked, outcome.usages_duplicate, claims.failures) == (300, 0, 0)
    assert verify(conn).ok
    stored = conn.execute("SELECT event_key, workspace_id, fingerprint FROM taximeter.usage_keys").fetchall()
    assert {(key.bytes, name, print_.bytes) for key, name, print_ in stored} == {
        (one.key, one.workspace_id, one.fingerprint) for one in batch
    }


def test_duplicates_and_conflicts_end_as_they_do_the_cautious_way(conn, usage):
    claims = Certain()
    batch = [usage("w", event_id=f"id-{number}", cost=5) for number in range(200)]
    booking.book(conn, batch[:100], context=BookingContext(claims=claims))
    other = usage("w", event_id="id-3", cost=6)
    outcome = booking.book(conn, [*batch, other], context=BookingContext(claims=claims))
    assert claims.failures == 1
    # The other one meets its first in the same batch.
    assert (outcome.usages_booked, outcome.usages_duplicate, len(outcome.refused)) == (100, 100, 1)
    assert outcome.refused[0].reason == "id_conflict"
    assert workspaces.get(conn, "w").balance == -1_000
    assert verify(conn).ok


def test_the_same_id_in_two_workspaces_is_two_events(conn, usage):
    batch = [usage(name, event_id=f"id-{number}") for number in range(60) for name in ("b", "a", "a:1")]
    assert booking.book(conn, batch, context=BookingContext(claims=Certain())).usages_booked == 180
    assert booking.book(conn, batch, context=BookingContext(claims=Certain())).usages_duplicate == 180


def test_overlapping_batches_of_optimistic_writers(database_url, conn, usage):
    rng = random.Random(SEED)
    events = [usage(f"w{rng.randrange(40)}", cost=rng.randrange(1, 10**9)) for _ in range(3_000)]

    def write(number: int) -> int:
        todo = random.Random(SEED + number).sample(events, 2_100)
        claims = Certain()
        with connect.booking_connection(database_url) as connection:
            return sum(
                booking.book(connection, todo[start : start + 150], context=BookingContext(claims=claims)).usages_booked
                for start in range(0, len(todo), 150)
            )

    with ThreadPoolExecutor(4) as pool:
        booked = sum(pool.map(write, range(4)))
    assert booked + booking.book(conn, events).usages_booked == len(events)
    report = verify(conn)
    assert report.ok, [fault.sentence for fault in report.faults]
    assert report.usages == len(events)


def test_each_failure_makes_the_next_optimistic_claim_wait_longer():
    claims = OptimisticClaims()
    waits = []
    for _ in range(5):
        wait = 0
        while not claims.expects_clean_batch:
            claims.record_clean_batch()
            wait += 1
        waits.append(wait)
        claims.record_repeat(rolled_back=True)
    assert waits == sorted(set(waits))
    for _ in range(10_000):
        claims.record_clean_batch()
    claims.record_repeat(rolled_back=False)
    claims.record_clean_batch()
    claims.record_clean_batch()
    assert claims.expects_clean_batch, "long without a failure, as soon as at the beginning"


def test_new_workspaces_cost_no_second_transaction(conn, usage):
    claims = OptimisticClaims()
    transactions = []
    for start in (0, 5):
        batch = [usage(f"new-{start + number % 10}") for number in range(20)]
        outcome = booking.book(
            conn, batch, context=BookingContext(claims=claims, before_commit=lambda: transactions.append(1))
        )
        assert outcome.usages_booked == 20
    assert len(transactions) == 2
    assert claims.known_workspaces == {f"new-{number}" for number in range(15)}
    assert verify(conn).ok


def test_a_wrong_memory_of_workspaces_loses_nothing(conn, usage):
    claims = OptimisticClaims()
    claims.known_workspaces |= {"gone", "other"}
    outcome = booking.book(conn, [usage("gone", cost=3), usage("other", cost=4)], context=BookingContext(claims=claims))
    assert outcome.usages_booked == 2
    assert workspaces.get(conn, "gone").balance == -3
    assert booking.book(conn, [usage("gone")], context=BookingContext(claims=claims)).usages_booked == 1


def test_unknown_workspaces_are_not_made_where_they_are_quarantined(conn, usage):
    policy = Policy(quarantine_unknown=True)
    outcome = booking.book(conn, [usage("stranger")], context=BookingContext(claims=OptimisticClaims(), policy=policy))
    assert [one.reason for one in outcome.refused] == ["unknown_workspace"]
    assert conn.execute("SELECT count(*) FROM taximeter.workspaces").fetchone() == (0,)


def test_many_old_workspaces_are_not_asked_for_and_a_new_one_among_them_is_made(conn, usage):
    ids = [f"old-{number:04}" for number in range(1_000)]
    booking.book(conn, [usage(name) for name in ids])
    claims = OptimisticClaims()
    for start in (0, 200):
        assert not claims.expects_existing(200)
        booking.book(conn, [usage(name) for name in ids[start : start + 200]], context=BookingContext(claims=claims))
    assert claims.expects_existing(200)
    assert not claims.expects_existing(199), "a few are asked for at less than a lost transaction costs"
    transactions = []
    batch = [usage(name, cost=5) for name in [*ids[400:600], "new"]]
    outcome = booking.book(
        conn, batch, context=BookingContext(claims=claims, before_commit=lambda: transactions.append(1))
    )
    assert (outcome.usages_booked, len(transactions)) == (201, 1)
    assert outcome.states["new"].balance == -5
    assert not claims.expects_existing(200), "it was wrong, so it creates what it has not seen again"
    assert verify(conn).ok
    for start in (600, 800):
        booking.book(conn, [usage(name) for name in ids[start : start + 200]], context=BookingContext(claims=claims))
    assert not claims.expects_existing(200), "and for longer than the first time"
