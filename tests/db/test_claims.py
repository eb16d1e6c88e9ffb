"""Claiming keys in hope: the same result as the sure way, whatever the batch holds."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

from taximeter_db import connect, ledger, workspaces
from taximeter_db.claims import Hope
from taximeter_db.verify import verify

SEED = 20261125


class Certain(Hope):
    """Hopes always, so that every batch is tried in hope first; a retry is sure."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0
        self._retrying = False

    def __bool__(self) -> bool:
        return not self._retrying

    def fulfilled(self) -> None:
        self._retrying = False

    def disappointed(self, *, failed: bool) -> None:
        self._retrying = failed
        self.failures += failed


def test_a_clean_batch_is_claimed_in_hope(conn, usage):
    hope = Certain()
    batch = [usage(f"w{number % 7}", cost=5) for number in range(300)]
    outcome = ledger.book(conn, batch, hope=hope)
    assert (outcome.usages_booked, outcome.usages_duplicate, hope.failures) == (300, 0, 0)
    assert verify(conn).ok
    stored = conn.execute("SELECT event_key, workspace_id, fingerprint FROM taximeter.usage_keys").fetchall()
    assert {(key.bytes, name, print_.bytes) for key, name, print_ in stored} == {
        (one.key, one.workspace_id, one.fingerprint) for one in batch
    }


def test_duplicates_and_conflicts_end_as_they_do_the_sure_way(conn, usage):
    hope = Certain()
    batch = [usage("w", event_id=f"id-{number}", cost=5) for number in range(200)]
    ledger.book(conn, batch[:100], hope=hope)
    other = usage("w", event_id="id-3", cost=6)
    outcome = ledger.book(conn, [*batch, other], hope=hope)
    assert hope.failures == 1
    # The other one meets its first in the same batch.
    assert (outcome.usages_booked, outcome.usages_duplicate, len(outcome.refused)) == (100, 100, 1)
    assert outcome.refused[0].reason == "id_conflict"
    assert workspaces.get(conn, "w").balance == -1_000
    assert verify(conn).ok


def test_the_same_id_in_two_workspaces_is_two_events(conn, usage):
    batch = [usage(name, event_id=f"id-{number}") for number in range(60) for name in ("b", "a", "a:1")]
    assert ledger.book(conn, batch, hope=Certain()).usages_booked == 180
    assert ledger.book(conn, batch, hope=Certain()).usages_duplicate == 180


def test_overlapping_batches_of_hopeful_writers(database_url, conn, usage):
    rng = random.Random(SEED)
    events = [usage(f"w{rng.randrange(40)}", cost=rng.randrange(1, 10**9)) for _ in range(3_000)]

    def write(number: int) -> int:
        todo = random.Random(SEED + number).sample(events, 2_100)
        hope = Certain()
        with connect.booking_connection(database_url) as connection:
            return sum(
                ledger.book(connection, todo[start : start + 150], hope=hope).usages_booked
                for start in range(0, len(todo), 150)
            )

    with ThreadPoolExecutor(4) as pool:
        booked = sum(pool.map(write, range(4)))
    assert booked + ledger.book(conn, events).usages_booked == len(events)
    report = verify(conn)
    assert report.ok, [fault.sentence for fault in report.faults]
    assert report.usages == len(events)


def test_each_failure_makes_hope_wait_longer():
    hope = Hope()
    waits = []
    for _ in range(5):
        wait = 0
        while not hope:
            hope.fulfilled()
            wait += 1
        waits.append(wait)
        hope.disappointed(failed=True)
    assert waits == sorted(set(waits))
    for _ in range(10_000):
        hope.fulfilled()
    hope.disappointed(failed=False)
    hope.fulfilled()
    hope.fulfilled()
    assert hope, "long without a failure, it hopes as soon as at the beginning"


def test_new_workspaces_cost_no_second_transaction(conn, usage):
    hope = Hope()
    transactions = []
    for start in (0, 5):
        batch = [usage(f"new-{start + number % 10}") for number in range(20)]
        outcome = ledger.book(conn, batch, hope=hope, before_commit=lambda: transactions.append(1))
        assert outcome.usages_booked == 20
    assert len(transactions) == 2
    assert hope.workspaces == {f"new-{number}" for number in range(15)}
    assert verify(conn).ok


def test_a_wrong_memory_of_workspaces_loses_nothing(conn, usage):
    hope = Hope()
    hope.workspaces |= {"gone", "other"}
    outcome = ledger.book(conn, [usage("gone", cost=3), usage("other", cost=4)], hope=hope)
    assert outcome.usages_booked == 2
    assert workspaces.get(conn, "gone").balance == -3
    assert ledger.book(conn, [usage("gone")], hope=hope).usages_booked == 1


def test_unknown_workspaces_are_not_made_where_they_are_quarantined(conn, usage):
    policy = ledger.Policy(quarantine_unknown=True)
    outcome = ledger.book(conn, [usage("stranger")], hope=Hope(), policy=policy)
    assert [one.reason for one in outcome.refused] == ["unknown_workspace"]
    assert conn.execute("SELECT count(*) FROM taximeter.workspaces").fetchone() == (0,)


def test_many_old_workspaces_are_not_asked_for_and_a_new_one_among_them_is_made(conn, usage):
    ids = [f"old-{number:04}" for number in range(1_000)]
    ledger.book(conn, [usage(name) for name in ids])
    hope = Hope()
    for start in (0, 200):
        assert not hope.expects(200)
        ledger.book(conn, [usage(name) for name in ids[start : start + 200]], hope=hope)
    assert hope.expects(200)
    assert not hope.expects(199), "a few are asked for at less than a lost transaction costs"
    transactions = []
    batch = [usage(name, cost=5) for name in [*ids[400:600], "new"]]
    outcome = ledger.book(conn, batch, hope=hope, before_commit=lambda: transactions.append(1))
    assert (outcome.usages_booked, len(transactions)) == (201, 1)
    assert outcome.states["new"].balance == -5
    assert not hope.expects(200), "it was wrong, so it makes sure again"
    assert verify(conn).ok
    for start in (600, 800):
        ledger.book(conn, [usage(name) for name in ids[start : start + 200]], hope=hope)
    assert not hope.expects(200), "and for longer than the first time"
