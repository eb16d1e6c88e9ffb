"""The analysis adds up to what SQL says, in the viewer's zone."""

from __future__ import annotations

import datetime as dt
import itertools
import re

import pytest

from benchmarks import generate
from dashboard_factory import PICO, make_usage
from taximeter_dashboard.charts import scale as charts_scale
from taximeter_dashboard.formatting import amounts, times
from taximeter_dashboard.pages import analysis as analysis_page
from taximeter_dashboard.reading import spending as analysis
from taximeter_dashboard.reading.spending import Question
from taximeter_db.ledger import booking, rollups
from taximeter_db.queries import history, spending

NEPAL = times.zone("Asia/Kathmandu")


def test_days_are_the_viewers(database_url, conn):
    generate.fill(database_url, generate.Shape(usages=3_000, workspaces=1, days=40, prefix="acme-"), connections=1)
    workspace_id = "acme-000000"
    reached, count = 0, 1
    while reached < count:  # in runs that end anywhere
        reached, count = rollups.advance(conn, workspace_id, 700)
    now = dt.datetime.now(dt.UTC)
    result = analysis.analyse(conn, Question(workspace_id, "month", "tool", NEPAL), now)
    first = analysis.starts(now, NEPAL, "month")[0].replace(tzinfo=NEPAL)
    expected = dict(
        conn.execute(
            """SELECT to_char(recorded_at AT TIME ZONE 'Asia/Kathmandu', 'FMDD Mon'), (sum(cost) * 1000000000000)::bigint
               FROM taximeter.usages WHERE recorded_at >= %s GROUP BY 1""",
            [first],
        ).fetchall()
    )
    assert len(expected) == 30
    assert {one.label: one.cost for one in result.periods} == expected
    assert result.cost == sum(expected.values()) == sum(total.cost for total in result.totals)
    for one in result.periods:
        assert sum(one.costs) == one.cost
    before = analysis.starts(now, NEPAL, "month", 1)[0].replace(tzinfo=NEPAL)
    [(earlier,)] = conn.execute(
        "SELECT (sum(cost) * 1000000000000)::bigint FROM taximeter.usages WHERE recorded_at >= %s AND recorded_at < %s",
        [before, first],
    ).fetchall()
    assert result.before == earlier == sum(one.before for one in result.periods) > 0


def test_balances_at_the_ends_of_days_are_those_of_the_log(database_url, conn, owner):
    generate.fill(database_url, generate.Shape(usages=3_000, workspaces=1, days=40, prefix="acme-"), connections=1)
    reached, count = 0, 1
    while reached < count:
        reached, count = rollups.advance(conn, "acme-000000", 3_000)
    owner.cookies.set("taximeter_zone", NEPAL.key)
    page = owner.get("/workspaces/acme-000000/analysis").text
    rows = page.partition("Balance at its end")[2]
    shown = re.findall(r'<th scope="row">([^<]*)</th><td class="number"[^>]*>([^<]*)</td>', rows)
    days = conn.execute(
        """SELECT to_char(recorded_at AT TIME ZONE 'Asia/Kathmandu', 'FMDD Mon'), max(entry)
           FROM (SELECT recorded_at, entry FROM taximeter.usages UNION ALL
                 SELECT recorded_at, entry FROM taximeter.payments) AS log
           WHERE recorded_at >= %s GROUP BY 1 ORDER BY 2""",
        [analysis.starts(dt.datetime.now(dt.UTC), NEPAL, "month")[0].replace(tzinfo=NEPAL)],
    ).fetchall()
    balances = dict(
        conn.execute(
            """SELECT entry, (balance_after * 1000000000000)::bigint FROM taximeter.usages UNION ALL
               SELECT entry, (balance_after * 1000000000000)::bigint FROM taximeter.payments"""
        ).fetchall()
    )
    expected = [(day, amounts.exact(balances[entry])) for day, entry in days]
    assert [(label.removesuffix(" (so far)"), text) for label, text in shown] == expected
    assert len(expected) == 30


def test_balances_before_the_newest_payments_are_not_guessed():
    noon, ends = dt.datetime(2026, 11, 26, 12, tzinfo=dt.UTC), []
    found = [history.Balance(n, noon - dt.timedelta(days=3 - n, hours=1), n * PICO) for n in range(3)]
    for known in (None, noon - dt.timedelta(days=2)):
        moments = [noon - dt.timedelta(days=2 - n) for n in range(3)]
        ends.append(analysis_page._ends(["a", "b", "c"], moments, found, 5 * PICO, known))
    assert ends[0] == [("a", ("$1.00", "")), ("b", ("$2.00", "")), ("c", ("$5.00", ""))]
    assert ends[1] == ends[0][1:]


def test_what_is_not_among_the_first_five_is_added_up(conn, book):
    book(*(make_usage(cost="0.01", tool=f"tool-{n % 7}") for n in range(14)))
    result = analysis.analyse(conn, Question("acme", "day", "tool", NEPAL), dt.datetime.now(dt.UTC))
    assert [total.name for total in result.totals][-1] == "All other"
    assert len(result.totals) == 6
    assert sum(total.cost for total in result.totals) == result.cost == 14 * PICO // 100


@pytest.mark.parametrize(
    ("zone", "day", "hours"), [("Europe/Riga", dt.date(2026, 3, 29), 23), ("Europe/Riga", dt.date(2026, 10, 25), 25)]
)
def test_an_hour_that_the_clock_skips_or_repeats_is_counted_once(zone, day, hours):
    where = times.zone(zone)
    midnight = dt.datetime(day.year, day.month, day.day, tzinfo=where)
    until = (midnight + dt.timedelta(days=1)).astimezone(dt.UTC)
    periods = spending._periods(spending.Span(midnight.astimezone(dt.UTC), until, "hour", where.key))
    assert [start.hour for start, _ in periods] == list(range(24))
    moments = [moment for _, moment in periods] + [until]
    lengths = [(end - start) / dt.timedelta(hours=1) for start, end in itertools.pairwise(moments)]
    assert sum(lengths) == hours
    assert sorted(set(lengths)) == ([0, 1] if hours == 23 else [1, 2])


def test_usages_of_just_now_are_in(conn, book):
    book(*(make_usage(cost="0.01") for _ in range(3)))
    for span in analysis.SPANS:
        result = analysis.analyse(conn, Question("acme", span, "model", NEPAL), dt.datetime.now(dt.UTC))
        assert (result.usages, result.cost, result.periods[-1].running) == (3, 3 * PICO // 100, True)


@pytest.mark.parametrize("span", analysis.SPANS)
def test_periods_follow_on_one_another(span):
    now = dt.datetime(2027, 1, 31, 22, 30, tzinfo=dt.UTC)
    edges = analysis.starts(now, NEPAL, span, 1) + analysis.starts(now, NEPAL, span)
    assert len(edges) == len(set(edges)) == 2 * analysis.SPANS[span][0]
    assert edges == sorted(edges)


def test_a_high_period_is_three_times_the_median():
    sums = [10] * 14 + [31, 30]
    assert analysis._high(sums, 14)
    assert not analysis._high(sums, 15)
    assert not analysis._high([0] * 14 + [5], 14)
    assert not analysis._high([10, 100], 1)


@pytest.mark.parametrize(
    ("top", "bottom"),
    [(0, 0), (1, 0), (7, 0), (305, 0), (10**9, 0), (4 * 10**11, 0), (123 * 10**12, 0), (89 * 10**12, -12 * 10**10)]
    + [(10**n * m // 100, -(10**n) // 7) for n in (3, 12) for m in (0, 100, 125, 200, 499, 510, 850, 999)],
)
def test_ticks_are_round_and_few(top: int, bottom: int):
    scale = charts_scale.scale(top, bottom)
    assert scale.bottom <= bottom <= 0 <= top <= scale.top
    assert 4 <= len(scale.ticks) <= 6
    assert scale.bottom <= scale.ticks[0] <= 0 <= scale.ticks[-1] <= scale.top
    (step,) = {after - before for before, after in itertools.pairwise(scale.ticks)}
    assert re.fullmatch(r"[125]0*", str(step))
    assert [label for label in scale.labels() if "$" in label] == [scale.labels()[-1]]


def test_a_colour_belongs_to_a_name():
    few = analysis.series_colors(["chat", "summaries"])
    more = analysis.series_colors(["chat", "summaries", "a", "b", "c"])
    assert sorted(more.values()) == [1, 2, 3, 4, 5]
    assert few == analysis.series_colors(["summaries", "chat"])
    assert len(set(few.values())) == 2


def test_spending_of_an_empty_workspace(conn):
    now = dt.datetime.now(dt.UTC)
    assert spending.spending(conn, "none", spending.Span(now, now, "day", "UTC"), by="tool") == []
    booking.book(conn, [])


def test_hostile_names_stay_text(owner, book):
    book(make_usage(tool="<script>alert(1)</script>"))
    text = owner.get("/workspaces/acme/analysis").text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text
    for query in ("span=week", "by=nobody", "span="):
        assert owner.get(f"/workspaces/acme/analysis?{query}").status_code == 422
