"""Charts hold what they are given, in as few shapes as they need."""

from __future__ import annotations

import datetime as dt
import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard_factory import PICO
from taximeter_dashboard.charts import columns
from taximeter_dashboard.charts.balance import Flip, Point, Span, balance_svg, steps

NOW = dt.datetime(2026, 11, 25, tzinfo=dt.UTC)
MOVE = re.compile(r"([HV])(\d+)")


def _covered(path: str) -> set[tuple[int, int]]:
    """The units that a step line runs over."""
    start, _, rest = path.partition("H")
    x, y = map(int, start[1:].split("V")[0].split())
    units = {(x, y)}
    for kind, text in MOVE.findall(start[start.find("V") :] + "H" + rest if "V" in start else "H" + rest):
        end = int(text)
        low, high = sorted((x, end) if kind == "H" else (y, end))
        units |= {(place, y) if kind == "H" else (x, place) for place in range(low, high + 1)}
        x, y = (end, y) if kind == "H" else (x, end)
    return units


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=60))
def test_a_step_line_looks_the_same_with_fewer_steps(places):
    places.sort(key=lambda one: one[0])
    (x, y), *others = places
    every = f"M{x} {y}" + "".join(f"H{x}V{y}" for x, y in others)
    few = steps(places)
    # What it leaves out at the end is drawn by the caller, who leads the line on to the right edge.
    assert _covered(f"{few}H31") == _covered(f"{every}H31")
    assert few.count("V") <= 3 * len({x for x, _ in places})


def _columns(count: int) -> list[columns.Column]:
    segments = [columns.Segment(color, (color + 1) * PICO) for color in range(6)]
    return [columns.Column(f"{n} Nov", segments, n % 7 == 0, n == count - 1, 3 * PICO) for n in range(count)]


def test_a_series_is_one_path_that_holds_all_its_segments():
    drawn = str(columns.columns_svg("costs", _columns(30)))
    for color in range(6):
        (path,) = re.findall(rf'<path class="s{color}" stroke-width="25.3" d="([^"]*)"', drawn)
        heights = re.findall(r"v(\d+)", path)
        # The scale ends at 21 USD, the sum of 1 to 6; some pixels of each segment are the gap above the next one.
        assert len(heights) == 30
        assert {round((color + 1) * 1000 / 21) - int(one) for one in heights} <= {4, 5, 6}
    assert drawn.count("<title>") == 30
    assert drawn.count("▲") == 3 * 5
    assert drawn.count("<pattern") == 3


@pytest.mark.parametrize("count", [0, 1, 12, 62])
def test_any_number_of_columns_is_drawn(count: int):
    drawn = str(columns.columns_svg("costs", _columns(count)))
    assert drawn.count("<use ") == len(columns.SIZES)
    assert "nan" not in drawn
    points = [(f"{n} Nov", None if n % 3 else n * PICO) for n in range(count)]
    assert str(columns.line_svg("each", points)).count("h0") == -(-count // 3)


@pytest.mark.parametrize("count", [1, 30, 62])
def test_labels_stand_apart(count: int):
    drawn = str(columns.columns_svg("costs", _columns(count)))
    for name, width, _ in columns.SIZES:
        within = drawn.partition(f'<div class="{name}-chart">')[2].partition("</div>")[0]
        labels = [(float(x), text) for x, text in re.findall(r'class="label" x="([\d.]+)"[^>]*>([^<]*)', within)]
        assert labels
        end = 0.0
        for x, text in labels:
            half = len(text) * columns.LETTER / 2
            assert x - half > end
            end = x + half
        assert end <= width


def test_every_flip_is_a_dot_and_none_of_their_numbers_covers_another():
    span = Span(NOW - dt.timedelta(days=30), NOW, [])
    flips = [Flip(NOW - dt.timedelta(minutes=7 * n), -PICO, 200 - n, n % 2 == 0) for n in range(200)][::-1]
    points = [Point(one.at, one.balance) for one in flips]
    drawn = str(balance_svg("balance", span, points, flips, (-PICO, 0)))
    shapes, *sizes = re.split('<div class="(?:wide|middle|small)-chart">', drawn)
    assert shapes.count("h0") == 200
    for drawing in sizes:
        places = [float(x) for x in re.findall(r'class="flip-number" x="([\d.]+)"', drawing)]
        assert places
        assert all(after - before >= 20 for before, after in itertools.pairwise(places))
    assert len(drawn) < 8_000


def test_the_number_of_a_flip_of_just_now_is_whole():
    drawn = str(
        balance_svg("b", Span(NOW - dt.timedelta(days=1), NOW, []), [], [Flip(NOW, -PICO, 1, True)], (-PICO, 0))
    )
    for width in (1080, 640, 264):
        assert f'class="flip-number" x="{width - 10}"' in drawn


def test_a_minimum_of_some_cents_takes_no_quarter_of_the_height():
    drawn = str(
        balance_svg("b", Span(NOW - dt.timedelta(days=1), NOW, []), [Point(NOW, 104 * PICO)], [], (-PICO // 8, 0))
    )
    (low,) = re.findall(r'class="limit" d="M0 (\d+)H', drawn)
    assert int(low) > 990
    assert re.findall(r'class="tick"[^>]*>([^<]*)<', drawn)[:4] == ["0.00", "50.00", "100.00", "$150.00"]
