"""The task that keeps the page's rollups close behind the log."""

from __future__ import annotations

import pytest
from benchmarks.generate import Shape, fill

from taximeter_db import connect, locks
from taximeter_db.ledger import rollups
from taximeter_db.locks import AdvisoryLock
from taximeter_worker.errors import LockTakenError
from taximeter_worker.pricing.loading import load_book
from taximeter_worker.tasks.replay import replay_waiting
from taximeter_worker.tasks.roll_up import roll_up
from waiting import eventually


def test_one_worker_at_a_time_rolls_up_and_the_farthest_behind_come_first(database_url):
    fill(database_url, Shape(usages=90, workspaces=3, days=1))
    with connect.connection(database_url) as conn, connect.connection(database_url) as other:
        with locks.hold(other, AdvisoryLock.ROLL_UP), pytest.raises(LockTakenError):
            roll_up(conn)
        for _ in range(2):
            rollups.advance(other, "ws-000000", run_max=10)
        rollups.advance(other, "ws-000001", run_max=10)
        assert rollups.behind(other) == ["ws-000002", "ws-000001", "ws-000000"]
        assert rollups.behind(other, limit=1) == ["ws-000002"]
        assert roll_up(conn) == 3
        assert rollups.behind(conn) == []


def test_a_long_roll_up_keeps_no_replay_out(database_url):
    with connect.connection(database_url) as busy, connect.booking_connection(database_url) as conn:
        with locks.hold(busy, AdvisoryLock.ROLL_UP):
            assert replay_waiting(conn, lambda *_: None, book=load_book(conn)) == 0
        with locks.hold(busy, AdvisoryLock.REPLAY), pytest.raises(LockTakenError):
            replay_waiting(conn, lambda *_: None, book=load_book(conn))


def test_a_task_that_finds_its_lock_taken_is_sent_again_and_counted(new_worker, database_url, broker_url, redis_url):
    with connect.connection(database_url) as other, locks.hold(other, AdvisoryLock.ROLL_UP):
        worker = new_worker(database_url, broker_url, redis_url).start()
        locked = 'taximeter_task_runs_total{outcome="locked",task="taximeter.roll_up"}'
        eventually(lambda: worker.connected)
        eventually(lambda: worker.metrics()[locked] >= 2, what="the beat's, and the one that was sent again")
    done = 'taximeter_task_runs_total{outcome="succeeded",task="taximeter.roll_up"}'
    eventually(lambda: worker.metrics()[done] >= 1)
    assert worker.stop() == 0
    assert "Traceback" not in worker.text()
    assert "delayed delivery" not in worker.text()
