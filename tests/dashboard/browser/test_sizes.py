"""Sizes: of what a finger or a pointer has to hit, of long names, of fields that must show what is in them."""

from __future__ import annotations

import pytest

from dashboard_factory import make_usage

pytestmark = pytest.mark.browser

LONG = "a-tool-whose-name-somebody-made-up-in-a-hurry-and-never-shortened-again-" * 3
LOW = """(least) => [...document.querySelectorAll('button, .button, select, input, summary, .tabs a, .choices a, .pager a')]
    .map((one) => (one.type === 'checkbox' ? one.closest('label') : one))
    .filter((one) => one.checkVisibility() && one.type !== 'hidden' && one.getBoundingClientRect().height < least)
    .map((one) => one.outerHTML.slice(0, 80))"""


@pytest.mark.parametrize(
    "path", ["acme", "acme/payments", "turns/analysis?span=day", "slim/settings", "slim/budgets", "slim/statements"]
)
def test_controls_are_large_enough(new_context, site, path: str):
    page = new_context().new_page()
    page.goto(f"{site.url}/workspaces/{path}")
    for width, least in ((1280, 36), (375, 44), (320, 44)):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate(LOW, least) == [], width


def test_a_long_name_does_not_make_a_tall_row(new_context, site, book_many):
    book_many([make_usage("wordy", tool=LONG[:200], model=LONG[:200])])
    page = new_context().new_page()
    page.goto(f"{site.url}/workspaces/wordy")
    for width in (320, 768, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.locator("tbody tr").bounding_box()["height"] <= 120, width


def test_days_of_the_filter_can_be_read(new_context, site):
    """A date field needs 130 pixels for its ten letters and its button; 140 with the larger letters of a phone."""
    page = new_context().new_page()
    page.goto(f"{site.url}/workspaces/acme/usages?since=2026-11-01")
    for width, least in ((1440, 130), (1040, 130), (768, 130), (375, 140), (320, 140)):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.locator("#f-since").bounding_box()["width"] >= least, width
