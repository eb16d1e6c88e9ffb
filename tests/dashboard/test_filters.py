"""Rollups say what the log says, and filters find what a scan would."""

from __future__ import annotations

import datetime as dt
import random

import pytest

from dashboard_factory import PICO, make_usage
from taximeter_db import ledger, rollups
from taximeter_db.reading import filtered
from taximeter_db.reading.filtered import Filter

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
        ledger.book(conn, batch)
    return conn


def _scan(conn, where: str = "true") -> list[tuple]:
    return conn.execute(
        f"SELECT seq, cost FROM taximeter.usages WHERE workspace_id = 'acme' AND {where} ORDER BY seq DESC"
    ).fetchall()


def _all(conn, wanted: Filter, *, newest: bool = True) -> list[int]:
    seen: list[int] = []
    while True:
        bound = {} if not seen else ({"before": seen[-1]} if newest else {"after": seen[-1]})
        page = filtered.matches(conn, "acme", wanted, newest=newest, limit=7, **bound)
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
        """SELECT * FROM (
             SELECT date_bin('15 minutes', recorded_at, 'epoch') AS slot, tool, coalesce(model, '') AS model, count(*),
                    sum(cost), max(cost), min(seq), max(seq) FROM taximeter.usages GROUP BY 1, 2, 3
           ) AS log EXCEPT SELECT slot, tool, model, usages, cost, cost_max, first_seq, last_seq
           FROM taximeter.usage_rollups"""
    ).fetchall()
    assert wrong == []
    tools, models = filtered.names(logged, "acme")
    assert (tools, models) == (sorted(TOOLS), ["gpt-4o", "sonnet"])


@pytest.mark.parametrize("newest", [True, False])
@pytest.mark.parametrize(
    ("wanted", "where"),
    [
        (Filter(), "true"),
        (Filter(tool="chat"), "tool = 'chat'"),
        (Filter(tool="chat", model="sonnet"), "tool = 'chat' AND model = 'sonnet'"),
        (Filter(cost_min=PICO // 20), "cost >= 0.05"),
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
    if wanted.cost_min is None:
        assert filtered.totals(logged, "acme", wanted) == (len(expected), int(sum(cost for _, cost in expected) * PICO))


def test_an_unknown_workspace_has_nothing_to_roll_up(conn):
    assert rollups.advance(conn, "nobody") == (0, 0)
