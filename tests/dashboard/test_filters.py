"""Rollups say what the log says, and filters find what a scan would."""

from __future__ import annotations

import datetime as dt
import html
import random
import re

import pytest

from dashboard_factory import PICO, bearer, make_usage
from taximeter_db.ledger import booking, rollups
from taximeter_db.queries import filtered
from taximeter_db.queries.filtered import Filter

TOOLS, MODELS = ["chat", "search", "<img src=x>"], ["gpt-4o", None, "sonnet"]


@pytest.fixture
def logged(conn):
    """600 usages of several tools and models."""
    chance = random.Random(7)
    for _ in range(30):
        batch = [
            make_usage(tool=chance.choice(TOOLS), model=chance.choice(MODELS), cost=f"0.0{chance.randint(1, 999):03d}")
            for _ in range(20)
        ]
        booking.book(conn, batch)
    return conn


def _scan(conn, where: str = "true") -> list[tuple]:
    return conn.execute(
        f"SELECT seq, cost FROM taximeter.usages WHERE workspace_id = 'acme' AND {where} ORDER BY seq DESC"
    ).fetchall()


def _all(conn, wanted: Filter, *, newest: bool = True) -> list[int]:
    seen: list[int] = []
    while True:
        bound = {} if not seen else ({"before": seen[-1]} if newest else {"after": seen[-1]})
        page = filtered.matches(conn, "acme", wanted, filtered.Window(newest=newest, limit=7, **bound))
        if not page:
            return seen
        seen += [row.seq for row in page]


@pytest.mark.parametrize("run", [1, 7, 100, 10_000])
def test_rollups_are_the_sum_of_the_log_however_they_are_cut(logged, run: int):
    reached, count = 0, 1
    if run == 1:
        rollups.advance(logged, "acme", 590)
    while reached < count:
        reached, count = rollups.advance(logged, "acme", run)
    assert (reached, count) == (600, 600)
    assert rollups.behind(logged) == []
    wrong = logged.execute(
        """WITH log AS (
             SELECT tool, coalesce(model, '') AS model, width_bucket(cost, '{0.001,0.01,0.1,1}'::numeric[])::smallint AS band,
                    date_bin('15 minutes', recorded_at, 'epoch') AS slot, seq / 1024 AS block, count(*) AS usages,
                    sum(cost) AS cost, min(seq), max(seq)
             FROM taximeter.usages GROUP BY 1, 2, 3, 4, 5
           )
           SELECT *, sum(usages) OVER running, sum(cost) OVER running FROM log
           WINDOW running AS (PARTITION BY tool, model, band ORDER BY slot, block)
           EXCEPT SELECT tool, model, band, slot, block, usages, cost, first_seq, last_seq, usages_total, cost_total
           FROM taximeter.usage_rollups"""
    ).fetchall()
    assert wrong == []
    known = filtered.names(logged, "acme")
    tools, models = known.tools, known.models
    assert (tools, models) == (sorted(TOOLS), ["gpt-4o", "sonnet"])


@pytest.mark.parametrize("newest", [True, False])
@pytest.mark.parametrize(
    ("wanted", "where"),
    [
        (Filter(), "true"),
        (Filter(tool="chat"), "tool = 'chat'"),
        (Filter(tool="chat", model="sonnet"), "tool = 'chat' AND model = 'sonnet'"),
        (Filter(cost_min=PICO // 100), "cost >= 0.01"),
        (Filter(cost_min=PICO // 1000, tool="chat"), "cost >= 0.001 AND tool = 'chat'"),
        (Filter(cost_min=PICO), "false"),
        (Filter(model="none of these"), "false"),
        (Filter(since=dt.datetime(2100, 1, 1, tzinfo=dt.UTC)), "false"),
        (Filter(until=dt.datetime(2100, 1, 1, tzinfo=dt.UTC), tool="search"), "tool = 'search'"),
    ],
)
def test_filters_find_what_a_scan_finds(logged, wanted: Filter, where: str, newest: bool):
    rollups.advance(logged, "acme")
    expected = _scan(logged, where)
    seqs = [seq for seq, _ in expected]
    assert _all(logged, wanted, newest=newest) == (seqs if newest else seqs[::-1])
    cost = int(sum(cost for _, cost in expected) * PICO)
    assert filtered.totals(logged, "acme", wanted) == filtered.Totals(len(expected), cost)


@pytest.fixture
def numbered(conn, monkeypatch):
    """500 usages with ids from a few stems, in runs of 64 and pages of 8, the newest ones in no run yet."""
    monkeypatch.setattr(rollups, "ID_RUN_USAGES", 64)
    monkeypatch.setattr(rollups, "ID_PAGE_IDS", 8)
    chance = random.Random(11)
    stems = ["a", "ab", "abc", "b", "~", "A", "a b", "0199c7f2-"]
    usages = [make_usage(event_id=f"{chance.choice(stems)}{n:03}", tool=chance.choice(TOOLS)) for n in range(500)]
    for first in range(0, 500, 50):
        booking.book(conn, usages[first : first + 50])
    for run in (3, 70, 100, 2000):
        rollups.advance(conn, "acme", run)
    return conn


@pytest.mark.parametrize("newest", [True, False])
@pytest.mark.parametrize(
    "start", ["a", "ab", "abc", "abc0", "b1", "~", "A", "a b", "0199c7f2-4", "c", " ", "a%", "a_", "~~"]
)
def test_ids_are_found_by_their_start(numbered, start: str, newest: bool):
    expected = numbered.execute(
        "SELECT seq, cost FROM taximeter.usages WHERE starts_with(event_id, %s) ORDER BY seq DESC", [start]
    ).fetchall()
    seqs = [seq for seq, _ in expected]
    wanted = Filter(id_start=start)
    assert _all(numbered, wanted, newest=newest) == (seqs if newest else seqs[::-1])
    cost = int(sum(cost for _, cost in expected) * PICO)
    for exactly in (False, True):
        assert filtered.totals(numbered, "acme", wanted, exactly=exactly) == filtered.Totals(len(seqs), cost)


@pytest.mark.parametrize("count_max", [20, 10_000])
@pytest.mark.parametrize("newest", [True, False])
@pytest.mark.parametrize("tool", [None, "chat"])
def test_ids_that_were_looked_up_lead_to_the_same_pages(numbered, monkeypatch, count_max, newest, tool):
    monkeypatch.setattr(filtered, "COUNT_MAX", count_max)
    wanted = Filter(id_start="ab", tool=tool)
    known = filtered.ids(numbered, "acme", wanted)
    assert (len(known) > count_max) == (count_max == 20)
    for bound in ({}, {"before": 300}, {"after": 300}, {"after": 100, "before": 400}):
        window = filtered.Window(newest=newest, limit=7, **bound)
        expected = filtered.search(numbered, "acme", wanted, window)
        assert len(expected.rows) == 7
        assert filtered.search(numbered, "acme", wanted, window, known) == expected
    for exactly in (True, False):
        expected = filtered.totals(numbered, "acme", wanted, exactly=exactly)
        assert filtered.totals(numbered, "acme", wanted, exactly=exactly, known=known) == expected


@pytest.mark.parametrize("path", ["/workspaces/acme/usages?id=ab", "/api/v1/workspaces/acme/usages?id=ab"])
def test_a_view_looks_ids_up_once(owner, numbered, monkeypatch, path):
    asked = []
    look = filtered._by_id
    monkeypatch.setattr(filtered, "_by_id", lambda *args: asked.append(args) or look(*args))
    answer = owner.get(path, headers=bearer() if "api" in path else {})
    assert (answer.status_code, len(asked)) == (200, 1)


def test_ids_and_other_terms_go_together(numbered, monkeypatch):
    where = "starts_with(event_id, 'ab') AND tool = 'chat'"
    wanted = Filter(id_start="ab", tool="chat")
    seqs = [seq for seq, _ in _scan(numbered, where)]
    assert _all(numbered, wanted) == seqs
    assert filtered.totals(numbered, "acme", wanted).usages == len(seqs)
    # A search that may not go on for ever says how far it came, and can be taken up there.
    monkeypatch.setattr(filtered, "_CANDIDATES", 3)
    monkeypatch.setattr(filtered, "_STEPS_MAX", 2)
    rare = Filter(id_start="a", tool="none of these")
    page, places = filtered.search(numbered, "acme", rare), []
    while page.place is not None:
        assert page.rows == []
        places.append(page.place)
        page = filtered.search(numbered, "acme", rare, filtered.Window(before=page.place))
    assert places == sorted(places, reverse=True)
    assert len(places) > 10


def test_what_is_too_many_to_count_unasked_is_said_so(numbered, monkeypatch):
    monkeypatch.setattr(filtered, "COUNT_MAX", 20)
    monkeypatch.setattr(filtered, "COSTED_MAX", 10)
    count = len(_scan(numbered, "starts_with(event_id, 'a')"))
    wanted = Filter(id_start="a")
    assert filtered.totals(numbered, "acme", wanted) == filtered.Totals(20, None, more=True)
    assert filtered.totals(numbered, "acme", wanted, exactly=True).usages == count > 20


def test_an_unknown_workspace_has_nothing_to_roll_up(conn):
    assert rollups.advance(conn, "nobody") == (0, 0)


def test_pages_of_matches_are_numbered_the_same_from_either_end(owner, book):
    book(*(make_usage(event_id=f"e{n}", cost="0.01") for n in range(45)))
    listed = re.compile(r'id="usage-(\d+)"')

    def page(query: str) -> tuple[list[str], str, str]:
        text = owner.get(f"/workspaces/acme/usages?tool=chat{query}").text
        follow = {
            name: html.unescape(address) for address, name in re.findall(r'href="([^"]+)"[^>]*id="page-(\w+)"', text)
        }
        where = re.search(r'class="where">([^<]*)<', text)
        return (
            listed.findall(text),
            where[1] if where else "",
            "|".join(follow.get(n, "") for n in ("previous", "next")),
        )

    first, words, links = page("")
    assert (first[0], len(first), words) == ("45", 20, "Page 1 of 3")
    second, words, links = page("&" + links.split("|")[1].partition("tool=chat&")[2])
    assert (second[0], len(second), words) == ("25", 20, "Page 2 of 3")
    third, words, _ = page("&" + links.split("|")[1].partition("tool=chat&")[2])
    assert (third, words) == ([str(n) for n in range(5, 0, -1)], "Page 3 of 3")
    last, words, links = page("&end=1")
    assert (last, words) == (third, "Page 3 of 3")
    back, words, _ = page("&" + links.split("|")[0].partition("tool=chat&")[2])
    assert (back, words) == (second, "Page 2 of 3")


def test_going_to_a_time_begins_there(owner, book, conn):
    book(*(make_usage(event_id=f"e{n}", cost="0.01") for n in range(30)))
    for sort, start in (("newest", "30"), ("oldest", "1")):
        at = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=2 if sort == "newest" else -2)
        text = owner.get(f"/workspaces/acme/usages?tool=chat&sort={sort}&at={at:%Y-%m-%dT%H:%M}").text
        assert re.search(r'id="usage-(\d+)"', text)[1] == start
        assert "2 pages in all" in text
    past = f"{dt.datetime.now(dt.UTC) - dt.timedelta(days=1):%Y-%m-%dT%H:%M}"
    assert "usage-" not in owner.get(f"/workspaces/acme/usages?tool=chat&at={past}").text.partition("<tbody")[2]
    for wrong in ("now", "2026-13-01T00:00", "0001-01-01T00:00"):
        assert owner.get(f"/workspaces/acme/usages?tool=chat&at={wrong}").status_code == 422
