"""A worker judges time by PostgreSQL's clock, whatever its own says and however that jumps."""

from __future__ import annotations

import datetime as dt
import json
import pickle
import time

import pytest
import time_machine

from taximeter import names
from taximeter_db import quarantine, server_time
from taximeter_db.connect import booking_connection, connection
from taximeter_db.ledger import booking
from taximeter_worker.decode.message import decode_message
from taximeter_worker.decode.result import Limits
from taximeter_worker.monotonic_schedule import MonotonicSchedule
from taximeter_worker.pricing.loading import load_book
from taximeter_worker.server_clock import ServerClock
from taximeter_worker.tasks.periodic import BEAT_SCHEDULE
from taximeter_worker.tasks.replay import ReplayContext, replay_waiting
from waiting import eventually
from workers import payment, usage

MINUTE = 60 * 1_000_000


def test_the_clock_goes_on_from_the_last_reading(database_url):
    monotonic = [0]
    clock = ServerClock(lambda: monotonic[0])
    with connection(database_url) as conn:
        clock.refresh(conn)
        read, own = clock.now(), server_time.now(conn)
        assert abs(read - own) < MINUTE
        monotonic[0] += 3 * MINUTE
        assert clock.now() == read + 3 * MINUTE, "PostgreSQL is away: the monotonic clock carries it on"
        clock.refresh(conn)
        assert clock.now() < read + MINUTE, "read again"


@pytest.mark.parametrize("minutes", [-6, 6, -60 * 24 * 365, 60 * 24])
def test_a_worker_whose_clock_is_wrong_books_live_traffic(new_runtime, broker_url, feed, ledger, monkeypatch, minutes):
    """Six minutes slow, every event looked as if it came from the future."""
    real_ns, real = time.time_ns, time.time
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + minutes * MINUTE * 1000)
    monkeypatch.setattr(time, "time", lambda: real() + minutes * 60.0)
    new_runtime(broker_url)
    now = dt.datetime.fromtimestamp(real(), dt.UTC)
    feed.send({**usage("acme"), "time": now.isoformat()})
    feed.send({**usage("acme"), "time": (now + dt.timedelta(minutes=10)).isoformat()})
    eventually(lambda: ledger.usages == 1)
    eventually(lambda: ledger.quarantined() == {"future_event": 1})


def test_an_event_of_the_future_is_booked_by_itself_once_its_time_has_come(priced_url, ledger):
    """By PostgreSQL's clock; a payment stays for a person, since it may have come by the way of usages."""
    with booking_connection(priced_url) as conn:
        now = server_time.now(conn)
        soon = dt.datetime.fromtimestamp(now // 1_000_000 + 600, dt.UTC).isoformat()
        events = [{**usage("acme"), "time": soon}, {**payment("acme", "5"), "time": soon}]
        decoded = decode_message(json.dumps(events).encode(), names.CONTENT_TYPE_BATCH, now=now)
        assert [rejected.reason for rejected in decoded.rejected] == ["future_event"] * 2
        booking.book(conn, [], [], decoded.rejected)
        book = load_book(conn)
        assert replay_waiting(conn, lambda *_: None, book=book) == 0, "not yet"
        assert not [action for entry in quarantine.find(conn) for action in quarantine.actions(conn, entry.id)]
        # Ten minutes later: the limit moves instead of the clock.
        context = ReplayContext(Limits(future_seconds_max=601))
        assert replay_waiting(conn, lambda *_: None, book=book, context=context) == 1
    assert ledger.balance("acme") == "-0.001"
    assert ledger.quarantined() == {"future_event": 1}
    assert ledger.one("SELECT resolved_by FROM taximeter.quarantine WHERE resolved_at IS NOT NULL") == "its time came"


@pytest.mark.parametrize("hours", [-24, 24])
def test_the_beat_goes_on_when_the_clock_is_set(hours):
    schedule = MonotonicSchedule(60)
    due = []
    with time_machine.travel(dt.datetime.now(dt.UTC), tick=False) as traveller:
        ran_at = schedule.now()
        due.append(schedule.is_due(ran_at))
        traveller.shift(dt.timedelta(hours=hours))
        due.append(schedule.is_due(ran_at))
    for state in due:
        assert not state.is_due
        assert 0 < state.next <= 60, "neither at once nor a day late"


def test_every_task_of_the_beat_runs_by_the_monotonic_clock():
    assert BEAT_SCHEDULE
    for entry in BEAT_SCHEDULE.values():
        assert isinstance(entry["schedule"], MonotonicSchedule)
        assert pickle.loads(pickle.dumps(entry["schedule"])) == entry["schedule"]
