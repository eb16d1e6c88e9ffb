"""The charts of the analysis as they are seen: in their colours, and with a list that is turned page by page."""

from __future__ import annotations

import io
import re

import pytest
from PIL import Image
from playwright.sync_api import expect

from dashboard_factory import make_usage
from taximeter_dashboard.reading import spending

pytestmark = pytest.mark.browser

COLORS = "() => [...Array(6).keys()].map((n) => getComputedStyle(document.body).getPropertyValue(`--s${n}`).trim())"


@pytest.mark.parametrize("width", [1280, 800, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_columns_are_drawn_in_the_colours_of_their_tools(new_context, site, scheme: str, width: int):
    page = new_context(color_scheme=scheme, viewport={"width": width, "height": 900}).new_page()
    page.goto(f"{site.url}/workspaces/acme/analysis")
    colors = page.evaluate(COLORS)
    chart = page.get_by_role("img", name=re.compile("^Cost by day"))
    picture = Image.open(io.BytesIO(chart.screenshot(animations="disabled"))).convert("RGB")
    # pictures cost 0.12, chat 0.0021: a column and a sliver; hatched, as the day still runs
    tall = spending.series_colors(["chat", "image"])["image"]
    seen = {color: count for count, color in picture.getcolors(picture.width * picture.height)}
    red, green, blue = (int(colors[tall][place : place + 2], 16) for place in (1, 3, 5))
    assert seen.get((red, green, blue), 0) > 200
    if scheme == "dark":  # what no rule reaches would be filled with black
        assert seen.get((0, 0, 0), 0) < 50


def test_the_list_of_flips_is_turned_page_by_page(new_context, site):
    page = new_context().new_page()
    page.goto(f"{site.url}/workspaces/turns/analysis?span=day")
    numbers = page.locator(".flips tbody .flip-number")
    expect(numbers).to_have_text([str(number) for number in range(24, 14, -1)])
    page.locator("#flips-earlier").focus()
    page.keyboard.press("Enter")
    expect(numbers).to_have_text([str(number) for number in range(14, 4, -1)])
    expect(page.locator("#history-title")).to_be_focused()
    expect(page.locator("#history-title")).to_be_in_viewport()
    expect(page).to_have_url(re.compile(r"span=day&by=tool&flips=2#history-title$"))
    page.locator("#flips-earlier").click()
    expect(numbers).to_have_text(["4", "3", "2", "1"])
    expect(page.locator("#flips-earlier")).to_have_count(0)
    page.go_back()
    expect(numbers).to_have_count(10)
    page.locator("#flips-later").click()
    expect(numbers.first).to_have_text("24")
    page.locator("#by-model").click()
    expect(page.locator("#panel-title")).to_be_focused()

    plain = new_context(java_script_enabled=False).new_page()
    plain.goto(f"{site.url}/workspaces/turns/analysis?span=day&flips=99")
    expect(plain.locator(".flips tbody .flip-number")).to_have_text(["4", "3", "2", "1"])
    plain.locator("#flips-later").click()
    expect(plain.locator(".flips tbody .flip-number").first).to_have_text("14")


POINTS = """() => [...document.querySelectorAll('.behind[open] thead tr th')].map((_, place) => new Set(
    [...document.querySelectorAll('.behind[open] :is(tbody, tfoot) tr')].map((row) => row.children[place])
        .filter((cell) => cell.textContent.includes('.')).map((cell) => {
            const text = cell.firstChild, range = document.createRange();
            range.setStart(text, text.data.indexOf('.'));
            range.setEnd(text, text.data.indexOf('.') + 1);
            return Math.round(range.getBoundingClientRect().x);
        })).size)"""


def test_the_points_of_a_column_stand_in_line(new_context, site, book_many):
    book_many([make_usage("lines", tool=f"tool-{n}", cost=f"0.{'1' * n}") for n in range(1, 4)])
    page = new_context().new_page()
    page.goto(f"{site.url}/workspaces/lines/analysis")
    page.locator(".behind summary").first.click()
    assert page.evaluate(POINTS) == [0, 0, 1, 1, 1, 1, 1]
    region = page.get_by_role("region", name="Cost by day")
    assert region.evaluate("(one) => one.scrollWidth <= one.clientWidth")
    behind = page.locator(".behind", has_text="Balance by day as a table")
    behind.locator("summary").click()
    expect(behind.locator("tbody tr")).to_have_count(1)
    expect(behind.locator("tbody td")).to_have_text(re.compile(r"^\W\$0\.321$"))


LETTERS = """() => [...document.querySelectorAll('svg.chart text')].filter((text) => text.getClientRects().length)
    .map((text) => parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a)"""


def test_letters_keep_their_size_at_every_width(new_context, site):
    page = new_context().new_page()
    page.goto(f"{site.url}/workspaces/acme/analysis")
    for width in (320, 390, 409, 410, 480, 600, 719, 720, 820, 899, 900, 1039, 1040, 1159, 1160, 1280, 1920):
        page.set_viewport_size({"width": width, "height": 900})
        sizes = page.evaluate(LETTERS)
        assert 12 <= min(sizes) <= max(sizes) <= 17, width
