"""Budgets in the ledger: what counts, in which period, what is crossed, and what the flag must say."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taximeter_db import access, flag_debts
from taximeter_db.budgets import periods, reading, setting
from taximeter_db.budgets.terms import Terms, parse_period, parse_tag
from taximeter_db.errors import NotFoundError, SettingsError
from taximeter_db.ledger import booking
from taximeter_db.ledger.booking import read_states
from taximeter_db.notices import targets
from taximeter_db.notices.targets import NewTarget
from taximeter_db.sql import statements

USD = 10**12
HOUR = 3_600_000_000


def terms(name: str = "all", limit: int = 10 * USD, period: str = "total", **more: Any) -> Terms:
    period, hours = parse_period(period)
    return Terms(more.pop("workspace_id", "acme"), name, limit, period, hours, **more)


def spent(conn, name: str = "all", workspace_id: str = "acme") -> tuple[int, int]:
    found = reading.find(conn, workspace_id, name)
    return found.spent, found.usages


def flag(conn, workspace_id: str = "acme") -> list[dict[str, Any]]:
    (state,) = read_states(conn, [workspace_id])
    return json.loads(state.budgets or "[]")


def now(conn) -> int:
    return conn.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").fetchone()[0]


def test_only_what_bears_every_condition_counts(conn, usage):
    setting.set_budget(conn, terms("all"))
    setting.set_budget(conn, terms("user", user="u-17"))
    setting.set_budget(conn, terms("both", user="u-17", tool="clip", model="gpt-4o", tag=("team", "search")))
    setting.set_budget(conn, terms("tag", tag=("team", "search")))
    booking.book(
        conn,
        [
            usage(cost=1),
            usage(cost=10, user_id="u-17"),
            usage(cost=100, user_id="u-17", tool="clip", tags={"team": "search", "x": "y"}),
            usage(cost=1_000, tags={"team": "sales"}),
            usage("other", cost=10_000, user_id="u-17"),
        ],
    )
    assert spent(conn) == (1_111, 4)
    assert spent(conn, "user") == (110, 2)
    assert spent(conn, "both") == spent(conn, "tag") == (100, 1)


def test_a_duplicate_and_a_conflict_count_once(conn, usage):
    setting.set_budget(conn, terms())
    first = usage(cost=5)
    booking.book(conn, [first])
    booking.book(conn, [first, usage(event_id=first.event_id, cost=7)])
    assert spent(conn) == (5, 1)


def test_a_new_budget_knows_what_was_spent_before_it(conn, usage):
    booking.book(conn, [usage(cost=5), usage(cost=6, user_id="u")])
    setting.set_budget(conn, terms())
    setting.set_budget(conn, terms("u", user="u", period="month"))
    assert spent(conn) == (11, 2)
    assert spent(conn, "u") == (6, 1)
    booking.book(conn, [usage(cost=7, user_id="u")])
    assert spent(conn, "u") == (13, 2)


def test_a_usage_counts_when_it_happened_however_late_it_is_booked(conn, usage):
    """By days in UTC: yesterday's usage is yesterday's, and one from the hour after midnight is tomorrow's."""
    setting.set_budget(conn, terms(period="day"))
    today = dt.datetime.fromtimestamp(now(conn) // 10**6, dt.UTC).replace(hour=0, minute=0, second=0)
    noon = int((today + dt.timedelta(hours=12)).timestamp()) * 10**6
    booking.book(conn, [usage(cost=1, occurred_at=noon), usage(cost=10, occurred_at=noon - 24 * HOUR)])
    booking.book(conn, [usage(cost=100, occurred_at=noon + 13 * HOUR)])
    assert spent(conn) == (1, 1)
    setting.set_budget(conn, terms(period="day"))  # counted again from the log, it is the same
    assert spent(conn) == (1, 1)


def test_rolling_hours_leave_out_what_is_older(conn, usage):
    setting.set_budget(conn, terms(period="hours:2"))
    moment = now(conn)
    booking.book(conn, [usage(cost=1, occurred_at=moment), usage(cost=10, occurred_at=moment - 2 * HOUR - 120 * 10**6)])
    booking.book(conn, [usage(cost=100, occurred_at=moment - HOUR)])
    assert spent(conn) == (101, 2)


def test_thresholds_are_crossed_once_and_the_limit_disables(conn, usage):
    setting.set_budget(conn, terms(limit=100, user="u"))
    for cost in (49, 1, 29, 1, 1):
        booking.book(conn, [usage(cost=cost, user_id="u")])
    assert [(row.kind, row.percent, row.spent) for row in reading.crossings(conn, "acme")][::-1] == [
        ("warned", 50, 50),
        ("warned", 80, 80),
    ]
    assert flag(conn) == []
    last = [usage(cost=5, user_id="u"), usage(cost=14, user_id="u"), usage(cost=1, user_id="u")]
    outcome = booking.book(conn, last)
    crossing = reading.crossings(conn, "acme")[0]
    assert (crossing.kind, crossing.percent, crossing.spent) == ("exceeded", 100, 101)
    assert (crossing.cause, crossing.cause_id) == ("usage", last[1].event_id)
    assert flag(conn) == [{"name": "all", "limit": "0.0000000001", "period": "total", "user": "u"}]
    assert json.loads(outcome.states["acme"].budgets) == flag(conn)
    assert [debt.workspace_id for debt in flag_debts.owed(conn)] == ["acme"]


def test_a_soft_budget_warns_and_disables_nothing(conn, usage):
    setting.set_budget(conn, terms(limit=100, hard=False))
    outcome = booking.book(conn, [usage(cost=200)])
    assert reading.crossings(conn, "acme")[0].kind == "exceeded"
    assert flag(conn) == []
    assert outcome.states["acme"].budgets is None


def test_the_debt_of_a_flag_is_noted_even_where_the_messages_come_again(conn, usage):
    from taximeter_db.ledger.context import BookingContext

    setting.set_budget(conn, terms(limit=100))
    flag_debts.settle(conn, flag_debts.owed(conn))
    booking.book(conn, [usage(cost=1)], context=BookingContext(owe_flags=False))
    assert flag_debts.owed(conn) == []
    booking.book(conn, [usage(cost=99)], context=BookingContext(owe_flags=False))
    assert [debt.workspace_id for debt in flag_debts.owed(conn)] == ["acme"]


def test_another_limit_restores_and_a_removal_too(conn, usage):
    setting.set_budget(conn, terms(limit=100))
    booking.book(conn, [usage(cost=100)])
    before = read_states(conn, ["acme"])[0].version
    after = setting.set_budget(conn, terms(limit=101), by="ann")
    assert after.budgets == "[]"
    assert after.version > before
    crossing = reading.crossings(conn, "acme")[0]
    assert (crossing.kind, crossing.cause, crossing.cause_id) == ("restored", "settings", "ann")
    setting.set_budget(conn, terms(limit=0), by="ann")
    assert flag(conn) != []
    assert setting.remove(conn, "acme", "all", by="bob").budgets == "[]"
    assert [row.kind for row in reading.crossings(conn, "acme")][:2] == ["restored", "exceeded"]
    assert reading.find(conn, "acme", "all") is None
    logged = access.changes(conn, "acme")
    assert (logged[0].changed_by, logged[0].field, logged[0].value_after) == ("bob", "budget all", None)
    assert logged[0].value_before == logged[1].value_after == "0 USD hard, total, thresholds 50 80 100"
    with pytest.raises(NotFoundError):
        setting.remove(conn, "acme", "all")


def test_crossings_are_told_with_their_cause(conn, usage):
    fields = {"channel": "webhook", "address": "https://hooks.example.com/path"}
    targets.add(conn, NewTarget(workspace_id="acme", **fields), None, "olga")
    setting.set_budget(conn, terms(limit=100, user="u"))
    batch = [usage(cost=60, user_id="u"), usage(cost=60, user_id="u")]
    for booked in batch:
        booking.book(conn, [booked])
    booking.book(conn, batch)
    setting.set_budget(conn, terms(limit=200, user="u"), by="ann")
    notices = conn.execute(
        "SELECT type, body FROM taximeter.notices WHERE type LIKE 'budget.%' ORDER BY notice_id"
    ).fetchall()
    assert [kind for kind, _ in notices] == ["budget.warned", "budget.exceeded", "budget.restored"]
    bodies = [json.loads(body)["data"] for _, body in notices]
    assert [(body["budget"], body["percent"]) for body in bodies] == [("all", 50), ("all", 100), ("all", 50)]
    assert [body["cause"] for body in bodies] == [
        {"kind": "usage", "id": batch[0].event_id},
        {"kind": "usage", "id": batch[1].event_id},
        {"kind": "settings", "by": "ann"},
    ]
    assert bodies[1]["spent"] == "0.00000000012"
    assert {"workspace", "status", "balance", "minimum_balance", "advice"} <= bodies[1].keys()


def advance(conn, to: dt.datetime, workspace_id: str = "acme") -> None:
    """Make the workspace's next change happen then: its time never runs back."""
    conn.execute("UPDATE taximeter.workspaces SET updated_at = %s WHERE workspace_id = %s", [to, workspace_id])


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/Havana", "Pacific/Chatham"])
@pytest.mark.parametrize("period", ["day", "week", "month"])
def test_a_periods_end_lifts_what_it_had_used_up(conn, usage, zone: str, period: str):
    setting.set_budget(conn, terms(limit=100, period=period, zone=zone))
    booking.book(conn, [usage(cost=100)])
    (budget,) = flag(conn)
    ends = dt.datetime.fromisoformat(budget["until"])
    local = ends.astimezone(ZoneInfo(zone))
    assert (local.hour, local.minute, local.second) == (0, 0, 0)
    advance(conn, ends - dt.timedelta(seconds=1))
    assert list(periods.end_periods(conn, ends - dt.timedelta(seconds=1))) == []
    assert flag(conn) != []
    advance(conn, ends)
    ((state,),) = periods.end_periods(conn, ends)
    assert state.budgets == "[]"
    crossing = reading.crossings(conn, "acme")[0]
    assert (crossing.kind, crossing.cause, crossing.spent) == ("restored", "period", 0)
    assert [debt.workspace_id for debt in flag_debts.owed(conn)] == ["acme"]
    assert list(periods.end_periods(conn, ends)) == []


def test_rolling_hours_lift_on_the_minute(conn, usage):
    setting.set_budget(conn, terms(limit=100, period="hours:1"))
    moment = now(conn)
    booking.book(conn, [usage(cost=60, occurred_at=moment - HOUR // 2), usage(cost=60, occurred_at=moment)])
    minute = 60 * 10**6
    lifts = (moment - HOUR // 2) // minute * minute + HOUR + minute
    for at, states in ((lifts - 1, 0), (lifts, 1)):
        advance(conn, dt.datetime.fromtimestamp(at / 10**6, dt.UTC))
        assert len([*periods.end_periods(conn, dt.datetime.fromtimestamp(at / 10**6, dt.UTC))]) == states
    assert flag(conn) == []
    assert [row.kind for row in reading.crossings(conn, "acme")] == ["restored", "exceeded"]


def test_a_batch_that_is_booked_after_the_end_begins_the_next_period_itself(conn, usage):
    setting.set_budget(conn, terms(limit=100, period="day"))
    booking.book(conn, [usage(cost=100)])
    ends = dt.datetime.fromisoformat(flag(conn)[0]["until"])
    advance(conn, ends)
    at = int(ends.timestamp()) * 10**6
    outcome = booking.book(conn, [usage(cost=60, occurred_at=at + 5)])
    assert outcome.states["acme"].budgets == "[]"
    assert [(row.kind, row.percent, row.cause) for row in reading.crossings(conn, "acme")][:2] == [
        ("warned", 50, "usage"),
        ("restored", 60 - 10, "period"),
    ]
    assert list(periods.end_periods(conn, ends)) == []


SQL = statements("budgets")
ZONES = sorted({"UTC", "Europe/Berlin", "America/Havana", "America/Santiago", "Asia/Beirut", "Australia/Lord_Howe"})


@settings(max_examples=300, deadline=None)
@given(st.data())
def _ends_as_python_says(conn, data):
    zone, period = data.draw(st.sampled_from(ZONES)), data.draw(st.sampled_from(["day", "week", "month"]))
    moment = dt.datetime.fromtimestamp(data.draw(st.integers(1_420_000_000, 2_050_000_000)), dt.UTC)
    (end,) = conn.execute("SELECT taximeter.budget_period_end(%s, %s, %s)", [period, zone, moment]).fetchone()
    buckets = conn.execute(
        "SELECT taximeter.budget_bucket(%(p)s, 0, %(z)s, m) FROM unnest(%(m)s::timestamptz[]) AS m",
        {"p": period, "z": zone, "m": [moment, end - dt.timedelta(microseconds=1), end]},
    ).fetchall()
    assert end > moment
    assert buckets[0] == buckets[1] != buckets[2]
    first, last = (at.astimezone(ZoneInfo(zone)).date() for at in (moment, end - dt.timedelta(microseconds=1)))
    following = end.astimezone(ZoneInfo(zone)).date()
    assert following > last >= first
    if period == "week":
        assert following.weekday() == 0
        assert (following - first).days <= 7
    elif period == "month":
        assert following.day == 1
        assert (following.year, following.month) != (first.year, first.month)
    else:
        assert last == first


def test_periods_end_where_the_calendar_of_the_zone_says(conn):
    _ends_as_python_says(conn)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "x" * 65},
        {"zone": "Mars/Olympus"},
        {"limit": -1},
        {"thresholds": (50, 50)},
        {"thresholds": (0,)},
        {"user": "a\nb"},
    ],
)
def test_terms_that_make_no_sense_are_refused(conn, wrong):
    with pytest.raises(SettingsError):
        setting.set_budget(conn, terms(**wrong))
    assert reading.list_budgets(conn, "acme") == []


@pytest.mark.parametrize("text", ["hour", "hours:0", "hours:745", "hours:-1", "DAY", "hours:1.5"])
def test_periods_that_make_no_sense_are_refused(text):
    with pytest.raises(SettingsError):
        parse_period(text)


@pytest.mark.parametrize("text", ["team", "=x", "Team=x", "team=", "team=" + "x" * 65])
def test_tags_that_make_no_sense_are_refused(text):
    with pytest.raises(SettingsError):
        parse_tag(text)
