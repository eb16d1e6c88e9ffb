"""Generated ledgers are as good as booked ones: they verify, and booking goes on from them."""

from __future__ import annotations

import psycopg
import pytest
from benchmarks.generate import Shape, fill, lay_partitions, roll_up

from factories import make_usage
from taximeter_db import connect
from taximeter_db.audit.verify import verify
from taximeter_db.ledger import booking, rollups
from taximeter_db.queries import usages


@pytest.mark.parametrize("ids", ["uuid7", "random"])
def test_it_verifies_and_booking_goes_on_from_it(database_url, ids):
    shape = Shape(usages=10_001, workspaces=7, days=3, ids=ids, payloads=True, width="day")
    fill(database_url, shape)
    with connect.booking_connection(database_url) as conn:
        # A generated id is remembered like any other: the same id again is a duplicate.
        first = usages.get(conn, shape.workspace_id(6), 1)
        outcome = booking.book(
            conn, [make_usage(shape.workspace_id(6), first.event_id), make_usage(shape.workspace_id(6), "new")]
        )
        assert (outcome.usages_booked, [one.reason for one in outcome.refused]) == (1, ["id_conflict"])
    with connect.connection(database_url) as conn:
        report = verify(conn)
        assert (report.faults, report.usages, report.workspaces, report.payments) == ([], 10_002, 7, 7)
        assert conn.execute("SELECT count(*) FROM taximeter.usage_payloads").fetchone()[0] == 10_001
        count = conn.execute("SELECT count(DISTINCT tableoid) FROM taximeter.usages").fetchone()[0]
        assert count >= 4, "three days back and today, a partition each"
        found = usages.find(conn, shape.workspace_id(3), usages.get(conn, shape.workspace_id(3), 1_000).event_id)
        assert found.seq == 1_000


def test_rollups_reach_the_end(database_url):
    shape = Shape(usages=500, workspaces=2, days=1)
    fill(database_url, shape)
    roll_up(database_url, shape)
    with connect.connection(database_url) as conn:
        assert rollups.behind(conn) == []
        total, log = conn.execute(
            "SELECT (SELECT sum(cost) FROM taximeter.usage_rollups), (SELECT sum(cost) FROM taximeter.usages)"
        ).fetchone()
        assert total == log > 0


def test_a_ledger_in_use_is_left_alone(database_url):
    fill(database_url, Shape(usages=10, workspaces=1, days=1))
    with connect.connection(database_url) as conn:
        with pytest.raises(SystemExit, match="empty"):
            lay_partitions(conn, 1)
        with pytest.raises(psycopg.Error):
            conn.execute("DELETE FROM taximeter.usages")
