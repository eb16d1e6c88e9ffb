"""The demonstration's past is a ledger like any other: it verifies, and booking goes on from it."""

from __future__ import annotations

import datetime as dt
import itertools

from taximeter_cli.demo import history, traffic
from taximeter_cli.demo.history import Habit
from taximeter_db import connect, status_changes
from taximeter_db.audit.verify import verify
from taximeter_db.ledger.events import Policy
from taximeter_db.queries import usages
from taximeter_worker.pricing.loading import seed

HABITS = {"rich": Habit(40, "40.00", "20.00", 3 * 10**12), "poor": Habit(40, "0.60", "0.60")}


def test_weeks_that_never_were(database_url: str):
    now = dt.datetime.now(dt.UTC)
    with connect.connection(database_url) as conn:
        seed(conn)
    traffic.price_pictures(database_url)
    with connect.booking_connection(database_url) as conn:
        states = history.fill(conn, history.Plan(HABITS, traffic.anything, Policy(), days=9), now)
        assert {state.workspace_id for state in states} == set(HABITS)
        assert history.fill(conn, history.Plan(HABITS, traffic.anything, Policy(), days=9), now) == []
    with connect.connection(database_url) as conn:
        for state in states:
            rows = usages.between(conn, state.workspace_id, 1, 1000)
            assert len(rows) > 50
            assert rows[0].recorded_at < now - dt.timedelta(days=7)
            assert now - dt.timedelta(days=1) < rows[-1].recorded_at <= now
            assert all(one.recorded_at <= other.recorded_at for one, other in itertools.pairwise(rows))
            found = usages.find(conn, state.workspace_id, rows[3].event_id)
            assert found == rows[3]
        changes = status_changes.latest(conn, "poor")
        assert {change.cause for change in changes} == {"usage", "payment"}
        assert status_changes.kept_since(conn) <= changes[-1].changed_at
        # Nothing of the borrowed clock is left.
        left = "SELECT count(*) FROM pg_namespace WHERE nspname = 'taximeter_demo'"
        assert conn.execute(left).fetchone() == (0,)
        defaults = """SELECT DISTINCT column_default FROM information_schema.columns
            WHERE table_schema = 'taximeter' AND column_name IN ('booked_at', 'updated_at') AND column_default IS NOT NULL"""
        assert conn.execute(defaults).fetchall() == [("now()",)]
        result = verify(conn)
    assert result.ok, result.faults
