"""Advisory locks: one number for each work, and none outside of their registry."""

from __future__ import annotations

import re
from pathlib import Path

from taximeter_db import connect, locks
from taximeter_db.locks import AdvisoryLock

ROOT = Path(__file__).parents[2]
SOURCES = ("db", "worker", "dashboard", "gateway", "cli", "producers")


def test_each_work_has_a_number_of_its_own():
    values = [lock.value for lock in AdvisoryLock.__members__.values()]
    assert len(set(values)) == len(values) == len(list(AdvisoryLock)), "an equal number would be an alias"


def test_no_number_stands_outside_of_the_registry():
    """The SQL of a migration is frozen, so it may repeat the number that the registry names."""
    number = re.compile(r"74_?803_?12_?9\d\d|7_480_312_9\d\d")
    home = ROOT / "db" / "taximeter_db" / "locks.py"
    found = {
        path.relative_to(ROOT).as_posix(): numbers
        for folder in SOURCES
        for path in (ROOT / folder).rglob("*.py")
        if path != home and (numbers := number.findall(path.read_text()))
    }
    partitions = str(AdvisoryLock.PARTITIONS.value)
    assert found == {
        "db/taximeter_db/migrations/versions/0001_ledger.py": [partitions],
        "db/taximeter_db/migrations/versions/0014_partitions_beside_bookings.py": [partitions, partitions],
    }


def test_a_lock_keeps_others_out_until_it_is_given_back(conn, database_url):
    with connect.connection(database_url) as other:
        with locks.try_hold(conn, AdvisoryLock.REPLAY) as first:
            assert first
            with (
                locks.try_hold(other, AdvisoryLock.REPLAY) as second,
                locks.try_hold(other, AdvisoryLock.ROLL_UP) as own,
            ):
                assert (second, own) == (False, True)
        with locks.hold(other, AdvisoryLock.REPLAY), locks.try_hold(conn, AdvisoryLock.REPLAY) as third:
            assert not third
