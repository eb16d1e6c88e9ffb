"""Statements: a year chains to the last digit and sums to the log; closed months never change; late usage has its month."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factories import make_payment, make_usage
from past import past
from servers.databases import drop_database, make_database, migrated_template
from taximeter_db import connect
from taximeter_db.errors import NotFoundError, SettingsError, StatementError
from taximeter_db.ledger import booking, rollups
from taximeter_db.statements import adding, reading, terms
from taximeter_db.statements.terms import Line, parse_month

USD = 10**12
YEAR = 2025
BEGINS = dt.datetime(YEAR - 1, 12, 20, tzinfo=dt.UTC)
ZONES = ("UTC", "Europe/Riga", "America/New_York", "Asia/Kathmandu", "Pacific/Kiritimati")
SIGNS = {"top_up": 1, "promo": 1, "refund": 1, "reinstated": 1, "clawback": -1, "expiry": -1, "adjustment": 0}
_numbers = iter(range(10**9))

amounts = st.integers(1, 40 * USD)
usages = st.tuples(
    st.just("usage"),
    st.sampled_from(("chat", "search", "Übersetzer")),
    st.sampled_from((None, "gpt-4o", "claude")),
    st.sampled_from((None, "u-1", "u-2")),
    st.integers(0, 3 * USD),
)
payments = st.tuples(st.sampled_from(sorted(SIGNS)), amounts, st.booleans())
# Minutes to the next entry: some within one minute, some beyond a whole month.
steps = st.one_of(st.integers(0, 3), st.integers(0, 60 * 24 * 12), st.just(60 * 24 * 40))
logs = st.lists(st.tuples(steps, st.one_of(usages, payments)), min_size=1, max_size=30)


def _event(workspace: str, what: tuple[Any, ...]) -> Any:
    if what[0] == "usage":
        _, tool, model, user, cost = what
        labels = {} if user is None else {"user_id": user}
        return make_usage(workspace, cost=cost, tool=tool, model=model, **labels)
    kind, amount, negative = what
    sign = SIGNS[kind] or (-1 if negative else 1)
    return make_payment(workspace, sign * amount, kind=kind)


@pytest.fixture(scope="module")
def long_ago(postgres):
    """A connection in a transaction in the past, for workspaces of a name of their own."""
    name = make_database(postgres, migrated_template(postgres))
    with connect.booking_connection(postgres.url(name)) as conn, past(conn, BEGINS) as it:
        yield it
    drop_database(postgres, name)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(log=logs, zone=st.sampled_from(ZONES), rolled=st.integers(0, 30), start=st.integers(0, 60 * 24 * 20))
def test_a_year_of_statements_chains_and_sums_to_the_log(long_ago, log, zone, rolled, start):
    conn, workspace = long_ago.conn, f"w{next(_numbers)}"
    where = zoneinfo.ZoneInfo(zone)
    expected: dict[str, dict[str, Any]] = defaultdict(lambda: {"kinds": defaultdict(lambda: [0, 0]), "usages": []})
    at = BEGINS + dt.timedelta(days=13, minutes=start)
    for minutes, what in log:
        at = min(at + dt.timedelta(minutes=minutes), dt.datetime(YEAR + 1, 1, 20, tzinfo=dt.UTC))
        event = _event(workspace, what)
        long_ago.book(at, event)
        month = expected[f"{at.astimezone(where):%Y-%m}"]
        if what[0] == "usage":
            month["usages"].append(what)
        else:
            month["kinds"][what[0]][0] += 1
            month["kinds"][what[0]][1] += event.amount
    with long_ago.present():
        conn.execute("INSERT INTO taximeter.statement_zones VALUES (%s, %s)", [workspace, zone])
        if rolled:
            rollups.advance(conn, workspace, rolled)
        reading.close(conn, workspace)
        months = reading.closed(conn, workspace, limit=100)[::-1]
    assert months[0].period.name == min(expected)
    assert [one.period.number for one in months] == list(range(1, len(months) + 1))
    balance, at = 0, months[0].period.starts_at
    for one in months:
        want = expected[one.period.name]
        assert (one.opening, one.period.starts_at) == (balance, at)
        assert {kind.kind: [kind.count, kind.amount] for kind in one.lines.kinds} == want["kinds"]
        assert one.payments == sum(amount for _, amount in want["kinds"].values())
        assert one.usage == sum(what[4] for what in want["usages"])
        assert (one.usages, one.payment_count) == (
            len(want["usages"]),
            sum(count for count, _ in want["kinds"].values()),
        )
        for place, lines in ((1, one.lines.tools), (2, one.lines.models), (3, one.lines.users)):
            sums: dict[str | None, list[int]] = defaultdict(lambda: [0, 0])
            for what in want["usages"]:
                sums[what[place]][0] += 1
                sums[what[place]][1] += what[4]
            assert {line.name: [line.usages, line.cost] for line in lines} == sums
        assert one.opening + one.payments - one.usage == one.closing
        balance, at = one.closing, one.period.ends_at
    for row in conn.execute(
        "SELECT balance * 1000000000000 FROM taximeter.workspaces WHERE workspace_id = %s", [workspace]
    ):
        assert row[0] == balance


@pytest.fixture
def year(conn):
    """acme had two entries in October 2025 and one in December; nothing since."""
    with past(conn, dt.datetime(2025, 10, 1, tzinfo=dt.UTC)) as it:
        it.book(dt.datetime(2025, 10, 3, tzinfo=dt.UTC), make_payment("acme", "10"), make_usage("acme", cost="4"))
        it.book(dt.datetime(2025, 12, 31, 23, 59, tzinfo=dt.UTC), make_usage("acme", cost="1.5"))
    return conn


def test_months_are_numbered_without_a_gap_and_idle_ones_are_there(year):
    october, november, december = (reading.read(year, "acme", dt.date(2025, month, 1)) for month in (10, 11, 12))
    assert [one.period.number for one in (october, november, december)] == [1, 2, 3]
    assert (october.payments, october.usage, october.closing) == (10 * USD, 4 * USD, 6 * USD)
    assert (november.opening, november.payments, november.usage, november.closing) == (6 * USD, 0, 0, 6 * USD)
    assert (december.usage, december.closing) == (3 * USD // 2, 9 * USD // 2)
    assert december.title == "acme-2025-12-3"
    assert december.closed_at is not None


def test_the_present_month_is_open_and_follows_the_log(conn):
    booking.book(conn, [], [make_payment("acme", "2")])
    now = conn.execute("SELECT date_trunc('month', now() AT TIME ZONE 'UTC')::date").fetchone()[0]
    first = reading.read(conn, "acme", now)
    assert (first.closing, first.usage, first.closed_at) == (2 * USD, 0, None)
    booking.book(conn, [make_usage("acme", cost="0.000000000001", user_id="u-1"), make_usage("acme", cost="1")])
    second = reading.read(conn, "acme", now)
    assert (second.usage, second.closing) == (USD + 1, USD - 1)
    assert second.lines.users == (Line("u-1", 1, 1), Line(None, 1, USD, names=0))
    assert conn.execute("SELECT count(*) FROM taximeter.statements").fetchone() == (0,)


def test_a_month_without_a_statement_says_which_there_are(year):
    with pytest.raises(
        NotFoundError, match=r"no statement of 2025-09: there are those from 2025-10 to \d{4}-\d\d, in UTC"
    ):
        reading.read(year, "acme", dt.date(2025, 9, 1))
    with pytest.raises(NotFoundError, match="nothing was ever booked"):
        reading.read(year, "other", dt.date(2025, 9, 1))
    for wrong in ("2025-13", "2025", "november", "2025-1", "1999-01"):
        with pytest.raises(SettingsError, match="not a month"):
            parse_month(wrong)


def test_what_is_booked_after_the_end_of_a_month_is_recorded_after_it(year):
    """Even by a statement that began before its end: the workspace, idle since, is brought past the end before it closes."""
    ends = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    before = year.execute("SELECT updated_at FROM taximeter.workspaces").fetchone()[0]
    assert before < ends
    december = reading.read(year, "acme", dt.date(2025, 12, 1))
    assert year.execute("SELECT updated_at FROM taximeter.workspaces").fetchone()[0] >= ends
    # Its events happened in December; they are recorded now, and count now.
    booking.book(year, [make_usage("acme", cost="0.5", occurred_at=1_766_000_000_000_000)])
    assert reading.read(year, "acme", dt.date(2025, 12, 1)) == december
    now = reading.present(year, "acme")
    assert (now.usage, now.usages, now.closing) == (USD // 2, 1, 4 * USD)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE taximeter.statements SET closing = closing",
        "UPDATE taximeter.statements SET lines = '[]' WHERE false",
        "DELETE FROM taximeter.statements",
        "TRUNCATE taximeter.statements",
    ],
)
def test_a_closed_month_is_kept_by_the_database(year, statement):
    reading.close(year, "acme")
    with pytest.raises(psycopg.errors.RestrictViolation, match="statements is append-only"):
        year.execute(statement)


@pytest.mark.parametrize("change", ["closing + 1", "'NaN'"])
def test_a_statement_that_does_not_add_up_is_refused_by_the_database(year, change):
    reading.close(year, "acme")
    with pytest.raises(psycopg.errors.CheckViolation):
        year.execute(
            f"""INSERT INTO taximeter.statements SELECT workspace_id, number + 90, month + interval '90 months', zone, starts_at,
                ends_at, opening, payments, usage, {change}, usage_first, usage_last, payment_first, payment_last, lines
                FROM taximeter.statements"""
        )


def test_many_who_close_at_once_store_one_statement_a_month(year, database_url):
    def close(_number: int) -> int:
        with connect.connection(database_url) as conn:
            return reading.close(conn, "acme")

    with ThreadPoolExecutor(6) as pool:
        done = sum(pool.map(close, range(6)))
    stored = year.execute("SELECT count(*), max(number) FROM taximeter.statements").fetchone()
    assert stored[0] == stored[1] == done


def test_a_new_zone_counts_from_the_present_month_on_and_the_chain_holds(year):
    reading.set_zone(year, "acme", "Europe/Riga", by="ada")
    assert reading.read(year, "acme", dt.date(2025, 12, 1)).period.zone == "UTC"
    last, now = reading.closed(year, "acme", limit=1)[0], reading.present(year, "acme")
    assert (now.period.zone, now.period.starts_at, now.opening) == ("Europe/Riga", last.period.ends_at, last.closing)
    local = now.period.ends_at.astimezone(zoneinfo.ZoneInfo("Europe/Riga"))
    assert (local.day, local.hour) == (1, 0)
    changed = year.execute("SELECT changed_by, field, value_before, value_after FROM taximeter.workspace_changes")
    assert ("ada", "zone", "UTC", "Europe/Riga") in changed.fetchall()
    with pytest.raises(SettingsError, match="not a time zone"):
        reading.set_zone(year, "acme", "Mars/Base", by="ada")


def test_months_that_are_due_are_found(year):
    booking.book(year, [], [make_payment("new", "1")])
    assert reading.due(year) == ["acme"]
    reading.close(year, "acme")
    assert reading.due(year) == []
    reading.set_zone(year, "acme", "Pacific/Honolulu", by="ada")
    assert reading.due(year) == []


def test_where_the_rollups_name_not_everything_the_log_is_read(year, monkeypatch):
    monkeypatch.setattr(rollups, "NAMES_MAX", 1)
    booking.book(year, [make_usage("acme", cost="1", tool=f"tool-{n}", user_id="u") for n in range(3)])
    while rollups.progress(year, "acme") != (5, 5):
        rollups.advance(year, "acme")
    now = reading.present(year, "acme")
    assert any(rollups.OTHER in name for name in adding.rolled_up(year, "acme", now.period).names)
    assert now.lines.tools == tuple(Line(f"tool-{n}", 1, USD) for n in range(3))
    assert now.lines.users == (Line("u", 3, 3 * USD),)


def test_wrong_rollups_do_not_make_a_wrong_statement(year):
    while rollups.progress(year, "acme") != (2, 2):
        rollups.advance(year, "acme")
    year.execute("UPDATE taximeter.usage_rollups SET cost_total = cost_total + 1, cost = cost + 1")
    december = reading.read(year, "acme", dt.date(2025, 12, 1))
    assert december.lines.tools == (Line("chat", 1, 3 * USD // 2),)


def test_a_log_that_does_not_add_up_is_said_and_nothing_is_stored(year):
    year.execute("ALTER TABLE taximeter.payments DISABLE TRIGGER ALL")
    year.execute("UPDATE taximeter.payments SET amount = 11")
    with pytest.raises(StatementError, match="does not add up in 2025-10"):
        reading.close(year, "acme")
    assert year.execute("SELECT count(*) FROM taximeter.statements").fetchone() == (0,)


def test_names_beyond_what_a_statement_lists_stand_in_one_line(year, monkeypatch):
    monkeypatch.setattr(adding, "LINES_MAX", 2)
    booking.book(year, [make_usage("acme", cost=str(n + 1), tool=f"t{n}") for n in range(4)])
    assert reading.present(year, "acme").lines.tools == (
        Line("t3", 1, 4 * USD),
        Line("t2", 1, 3 * USD),
        Line(None, 2, 3 * USD, names=2),
    )


def test_lines_come_back_as_they_were_stored():
    lines = terms.Lines(
        (terms.Kind("clawback", 2, -3), terms.Kind("top_up", 1, 10**27 - 1)),
        (Line("Übersetzer \N{SNOWMAN}", 3, 7), Line(None, 2, 0, names=0)),
        (Line(None, 9, 1, names=12),),
    )
    assert terms.from_json(terms.to_json(lines)) == lines
