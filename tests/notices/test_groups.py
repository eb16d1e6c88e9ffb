"""Notices of several lanes in one transaction, and the look for notices right after a commit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from factories import make_payment, make_usage
from taximeter_cli.embedded.logins import WORKER, part_url
from taximeter_db import connect
from taximeter_db.ledger import booking
from taximeter_db.notices import deliveries, groups, targets
from taximeter_db.notices.deliveries import Try
from taximeter_db.notices.groups import Reading
from taximeter_worker import runtime as runtime_module
from taximeter_worker.runtime import Runtime
from taximeter_worker.settings import Settings
from waiting import eventually
from workers import Feed, usage

READING = Reading(None, lambda lane, error: pytest.fail(f"{lane}: {error}"))


def what(found) -> list[tuple[str, str]]:
    return sorted((delivery.lane.workspace_id, delivery.type) for delivery in found)


def test_each_lane_ends_as_its_own_try_did(conn, receiver, target, put, states):
    """Of five tries one is refused, one's lease is another's by now, one was the last of its lane."""
    target(receiver.url, "*")
    for name in ("again", "failed", "last", "stolen", "too"):
        put("low", workspace_id=name)
    for name in ("again", "failed", "stolen", "too"):
        put("insufficient", workspace_id=name)
    found = groups.first_of(conn, deliveries.claim(conn, 8), READING)
    assert what(found) == [(name, "workspace.low") for name in ("again", "failed", "last", "stolen", "too")]
    conn.execute("UPDATE taximeter.notice_lanes SET lease = gen_random_uuid() WHERE workspace_id = 'stolen'")
    tried = [(one, Try("failed" if one.lane.workspace_id == "failed" else "delivered", "why", 3)) for one in found]
    following = groups.finish(conn, tried, READING, goes_on=True)
    assert what(following) == [("again", "workspace.insufficient"), ("too", "workspace.insufficient")]
    query = """SELECT workspace_id, notice_deliveries.state, tries FROM taximeter.notice_deliveries JOIN taximeter.notices
               USING (workspace_id, notice_id) WHERE type = 'workspace.low' ORDER BY 1"""
    assert conn.execute(query).fetchall() == [
        ("again", "delivered", 1),
        ("failed", "pending", 1),
        ("last", "delivered", 1),
        ("stolen", "pending", 0),
        ("too", "delivered", 1),
    ]
    lanes = "SELECT workspace_id FROM taximeter.notice_lanes WHERE lease IS NOT NULL ORDER BY 1"
    assert [row[0] for row in conn.execute(lanes)] == ["again", "stolen", "too"]
    assert conn.execute("SELECT due_at FROM taximeter.notice_lanes WHERE workspace_id = 'last'").fetchone() == (None,)
    tries = "SELECT workspace_id, outcome FROM taximeter.notice_tries ORDER BY 1"
    assert [row[0] for row in conn.execute(tries)] == ["again", "failed", "last", "too"]


def test_a_run_that_ends_gives_all_lanes_back(conn, receiver, target, put):
    target(receiver.url, "*")
    for name in ("a", "b"):
        put("low", "insufficient", workspace_id=name)
    found = groups.first_of(conn, deliveries.claim(conn, 8), READING)
    assert groups.finish(conn, [(one, Try("delivered", "", 1)) for one in found], READING, goes_on=False) == []
    again = groups.first_of(conn, deliveries.claim(conn, 8), READING)
    assert what(again) == [("a", "workspace.insufficient"), ("b", "workspace.insufficient")]


def test_a_booking_that_locks_the_lanes_the_other_way_around_costs_no_notice(
    conn, database_url, receiver, target, put, states
):
    target(receiver.url, "*")
    for name in ("a", "b"):
        put("low", workspace_id=name)
    found = groups.first_of(conn, deliveries.claim(conn, 8), READING)
    lock = "SELECT 1 FROM taximeter.notice_lanes WHERE workspace_id = %s FOR UPDATE"
    tried = [(one, Try("delivered", "", 1)) for one in found]
    with psycopg.connect(database_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("SELECT 1")
        other.execute(lock, ["b"])
        done = pool.submit(groups.finish, conn, tried, READING, goes_on=True)
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %s"
        with connect.connect(database_url) as looking:
            pid = conn.info.backend_pid
            eventually(lambda: looking.execute(waits, [pid]).fetchone() != (0,), what="it waits for b")
        try:
            other.execute(lock, ["a"])
        except psycopg.errors.DeadlockDetected:  # PostgreSQL chooses who gives way
            other.rollback()
        else:
            other.commit()
        assert done.result(60) == []
    assert states() == ["delivered", "delivered"]


def test_notices_are_looked_for_right_after_the_commit(priced_url, valkey_broker_url, redis_url, receiver, monkeypatch):
    """Without waiting for the next periodic look, which here never comes; and once for many notices."""
    monkeypatch.setattr(runtime_module, "NOTICE_WATCH_SECONDS", 3600.0)
    with connect.connection(priced_url) as conn:
        new = targets.NewTarget(channel="webhook", address=receiver.url, workspace_id="*", allow_private=True)
        targets.add(conn, new, None, "olga")
    asked: list[None] = []
    settings = Settings(
        broker_url=valkey_broker_url, database_url=part_url(priced_url, WORKER), redis_url=redis_url, metrics_port=0
    )
    parts = Runtime(settings, lambda: None, notices_due=lambda: asked.append(None))
    parts.start()
    try:
        feed = Feed(valkey_broker_url)
        feed.send(*(usage(f"w{number}", tokens=200_000) for number in range(50)))
        feed.close()
        eventually(lambda: asked, what="that a deliverer is asked for")
        with connect.connection(priced_url) as conn:
            assert conn.execute("SELECT count(*) FROM taximeter.notices").fetchone() == (50,)
    finally:
        parts.stop()
    assert len(asked) < 5


def test_a_booking_says_whether_it_may_have_written_notices(conn):
    """So that others cause no look."""
    assert booking.book(conn, [], [make_payment()]).may_notify
    assert not booking.book(conn, [make_usage(cost=1)]).may_notify
    assert booking.book(conn, [make_usage(cost="1000")]).may_notify
