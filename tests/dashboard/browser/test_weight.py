"""How much the page asks of the line and of the browser, with the demonstration's past behind it."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from servers.databases import drop_database, make_database, migrated_template
from taximeter_cli.demo import traffic
from taximeter_db import connect
from taximeter_db.ledger.events import Policy
from taximeter_worker.pricing.loading import seed

pytestmark = pytest.mark.browser

WORKSPACES = ["lumen-labs", traffic.FRUGAL]  # the most usages; the most changes of status
BYTES_MAX = 10_000
NODES_MAX = 1_500
SWAPS = {  # what is followed, and what then stands in the panel
    "payments": ("#tab-payments", "Payments"),
    "analysis": ("#tab-analysis", "Analysis"),
    "settings": ("#tab-settings", "Settings"),
    "usages": ("#tab-usages", "Usages"),
}
CHOICES = ("#by-model", "#span-day", "#span-year", "#by-tool", "#span-month")


@pytest.fixture(scope="module")
def demo_site(postgres, site) -> Iterator:
    """A dashboard on six weeks of usages with contents."""
    name = make_database(postgres, migrated_template(postgres))
    url = postgres.url(name)
    with connect.connection(url) as conn:
        seed(conn)
    traffic.price_pictures(url)
    with connect.booking_connection(url) as conn:
        traffic.past(conn, Policy(), dt.datetime.now(dt.UTC))
    own = site.beside(url)
    yield own
    own.stop()
    drop_database(postgres, name)


@pytest.mark.parametrize("workspace", WORKSPACES)
@pytest.mark.parametrize("tab", SWAPS)
def test_a_first_view_is_small(new_context, demo_site, tab: str, workspace: str):
    page = new_context(at=demo_site, timezone_id="UTC").new_page()
    seen = []
    page.on("requestfinished", lambda one: seen.append(one))  # noqa: PLW0108 - playwright cannot mark a builtin
    page.goto(f"{demo_site.url}/workspaces/{workspace}/{tab}")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    sizes = {one.url.removeprefix(demo_site.url): one.sizes()["responseBodySize"] for one in seen}
    assert len(sizes) == len(seen) <= 6, sizes
    assert sum(sizes.values()) <= 60_000, sizes
    assert _nodes(page) <= NODES_MAX


def _nodes(page) -> int:
    return page.evaluate("document.querySelectorAll('*').length")


@pytest.mark.parametrize("workspace", WORKSPACES)
def test_a_swap_is_smaller(new_context, demo_site, workspace: str):
    page = new_context(at=demo_site, timezone_id="UTC").new_page()
    page.goto(f"{demo_site.url}/workspaces/{workspace}")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")

    def weigh(selector: str) -> int:
        with page.expect_request_finished(lambda one: "hx-request" in one.headers) as swap:
            page.locator(selector).click()
        assert swap.value.response().headers["content-encoding"] == "gzip"
        return swap.value.sizes()["responseBodySize"]

    sizes = {}
    for tab, (selector, title) in SWAPS.items():
        sizes[tab] = weigh(selector)
        expect(page.locator("#panel-title")).to_have_text(title)
        assert _nodes(page) <= NODES_MAX, tab
        for choice in CHOICES if tab == "analysis" else ():
            sizes[choice] = weigh(choice)
            expect(page.locator(choice)).to_have_attribute("aria-current", "true")
            assert _nodes(page) <= NODES_MAX, choice
    for selector, where in (
        ("#page-next", "page 2 of"),
        ("#page-last", r"page (\d+) of \1$"),
        ("#page-first", "page 1 of"),
    ):
        sizes[selector] = weigh(selector)
        expect(page.locator("caption")).to_have_text(re.compile(where))
    sizes["details"] = weigh("tbody tr:first-child a")
    expect(page.locator("#details-title")).to_be_visible()
    assert max(sizes.values()) <= BYTES_MAX, sizes
