"""Many tabs of one browser: over HTTP/1.1 it has six connections to a host, and a stream holds one."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from dashboard_factory import make_payment
from taximeter_cli.embedded.process import wait_until

pytestmark = pytest.mark.browser

# Chromium without a screen takes each tab for seen.
HIDE = "() => { document.unseen = true; document.dispatchEvent(new Event('visibilitychange')); }"
SHOW = "() => { document.unseen = false; document.dispatchEvent(new Event('visibilitychange')); }"
UNSEEN = "Object.defineProperty(document, 'hidden', { get: () => document.unseen === true });"
UNSEEN_FROM_THE_START = UNSEEN + " document.unseen = true;"
TABS = 8


def streams(site) -> int:
    return sum(len(streams) for streams in site.app.state.watch._streams.values())


@pytest.fixture
def context(new_context, site):
    context = new_context()
    yield context
    context.close()
    assert wait_until(lambda: streams(site) == 0, 30)


def opened(context, site, script: str = UNSEEN) -> Page:
    page = context.new_page()
    page.add_init_script(script)
    page.goto(f"{site.url}/workspaces/live/usages", timeout=20_000)
    return page


def test_eight_tabs_load_and_those_that_are_unseen_hold_one_stream(context, site, book_at_site):
    pages = []
    for _ in range(TABS):
        page = opened(context, site)
        expect(page.locator("#live")).to_have_attribute("data-state", "live")
        assert wait_until(lambda: streams(site) >= 1, 30)
        page.evaluate(HIDE)
        pages.append(page)
    assert wait_until(lambda: streams(site) == 1, 30)
    titles = [page.title() for page in pages]
    book_at_site(make_payment("live", "1000"))
    expect(pages[-1]).not_to_have_title(titles[-1])
    assert [page.title() for page in pages[:-1]] == titles[:-1]
    pages[2].evaluate(SHOW)
    expect(pages[2]).not_to_have_title(titles[2])
    assert wait_until(lambda: streams(site) == 2, 30)
    pages[2].evaluate(HIDE)
    assert wait_until(lambda: streams(site) == 1, 30)


def test_tabs_that_are_opened_unseen_hold_no_stream(context, site):
    pages = [opened(context, site, UNSEEN_FROM_THE_START) for _ in range(TABS)]
    assert streams(site) == 0
    pages[0].evaluate(SHOW)
    assert wait_until(lambda: streams(site) == 1, 30)


def test_a_paused_tab_stays_paused(context, site):
    page = opened(context, site)
    assert wait_until(lambda: streams(site) == 1, 30)
    page.locator("#live").click()
    assert wait_until(lambda: streams(site) == 0, 30)
    page.evaluate(HIDE)
    page.evaluate(SHOW)
    expect(page.locator("#live")).to_have_attribute("data-state", "paused")
    assert streams(site) == 0
