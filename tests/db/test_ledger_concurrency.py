"""Several writers at once, with overlapping and shuffled batches: no deadlock, nothing is booked twice."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

from taximeter_db import connect, workspaces
from taximeter_db.audit.verify import verify
from taximeter_db.ledger import booking

SEED = 20261123


def test_overlapping_shuffled_batches_from_four_writers(database_url, conn, usage):
    rng = random.Random(SEED)
    events = [usage(f"w{rng.randrange(40)}", cost=rng.randrange(1, 10**9)) for _ in range(4_000)]

    def write(number: int) -> tuple[int, int]:
        mine = random.Random(SEED + number)
        booked = duplicate = 0
        with connect.booking_connection(database_url) as connection:
            todo = mine.sample(events, 2_800)
            for start in range(0, len(todo), 200):
                outcome = booking.book(connection, todo[start : start + 200])
                booked += outcome.usages_booked
                duplicate += outcome.usages_duplicate
        return booked, duplicate

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(write, range(4)))
    # A retry would hide them: it is the order of the locks that keeps them away.
    (deadlocks,) = conn.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    assert deadlocks == 0
    rest = booking.book(conn, events)
    assert sum(booked for booked, _ in results) + rest.usages_booked == len(events)
    assert sum(booked + duplicate for booked, duplicate in results) == 4 * 2_800
    report = verify(conn)
    assert report.ok, [fault.sentence for fault in report.faults]
    assert report.usages == len(events)
    (total,) = conn.execute("SELECT sum(usage_cost) * 1000000000000 FROM taximeter.workspaces").fetchone()
    assert total == sum(event.cost for event in events)


def test_opposing_movements_net_to_zero(database_url, conn, usage, payment):
    """Hundreds of debits and equal credits, raced by usage and payment writers: every balance ends at 0."""
    names = [f"w{number}" for number in range(10)]
    rng = random.Random(SEED)
    amounts = [(rng.choice(names), rng.randrange(1, 10**13)) for _ in range(600)]
    debits = [usage(name, cost=amount) for name, amount in amounts]
    credits_ = [payment(name, amount=amount) for name, amount in amounts]

    def run(job: tuple[int, bool]) -> None:
        number, debit = job
        mine = random.Random(SEED + number)
        with connect.booking_connection(database_url) as connection:
            todo = mine.sample(debits if debit else credits_, 600)
            for start in range(0, 600, 30):
                part = todo[start : start + 30]
                booking.book(connection, *(([], part), (part,))[debit])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, [(1, True), (2, False), (3, True), (4, False)]))
    for name in names:
        details = workspaces.get(conn, name)
        assert details.balance == 0
        assert details.usage_cost == details.payment_total > 0
    report = verify(conn)
    assert report.ok, [fault.sentence for fault in report.faults]
    assert (report.usages, report.payments) == (600, 600)


def test_one_hot_workspace_from_two_writers(database_url, conn, usage):
    events = [[usage("hot", cost=3) for _ in range(100)] for _ in range(20)]

    def write(batches) -> None:
        with connect.booking_connection(database_url) as connection:
            for batch in batches:
                booking.book(connection, batch)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, [events[::2], events[1::2]]))
    assert workspaces.get(conn, "hot").balance == -6_000
    assert verify(conn).ok
    times = [row[0] for row in conn.execute("SELECT recorded_at FROM taximeter.usages ORDER BY seq")]
    assert times == sorted(times)
