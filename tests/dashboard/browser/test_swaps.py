"""What happens between a click and its answer, and which answer prevails when people are quicker than the line."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Route, expect

from dashboard_factory import make_payment, make_usage

pytestmark = pytest.mark.browser


def _open(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    page.locator("#live").click()


def _hold(page: Page, where: str) -> Callable[[], None]:
    """Hold an answer back; what is returned lets it go."""
    held: list[Route] = []
    page.route(where, lambda route: held.append(route))  # noqa: PLW0108 - playwright cannot mark a builtin

    def let_go() -> None:
        [route] = held
        route.continue_()

    return let_go


def _settle(page) -> None:
    """Wait until whatever was let go has come, if it comes: an answer to a later request, and two frames after it."""
    page.evaluate("""() => fetch("/health").then(() => new Promise(
        (done) => requestAnimationFrame(() => requestAnimationFrame(done))))""")


def _called_off(name: str) -> Callable[[object], bool]:
    return lambda one: one.url.endswith(name) and one.failure == "net::ERR_ABORTED"  # type: ignore[attr-defined]


def test_loading_shows_after_150_ms_and_the_old_rows_stay(page, site):
    page.clock.install()
    _open(page, f"{site.url}/workspaces/acme")
    panel, bar = page.locator("#panel"), page.locator("#bar")
    rows = panel.locator("tbody").inner_html()
    let_go = _hold(page, "**/payments")
    page.clock.pause_at(page.evaluate("Date.now() + 1000"))
    with page.expect_request("**/payments"):
        page.locator("#tab-payments").click()
    page.clock.run_for(149)
    expect(bar).to_have_css("opacity", "0")
    expect(panel).not_to_have_attribute("aria-busy", "true")
    page.clock.run_for(1)
    expect(bar).to_have_css("opacity", "1")
    expect(panel).to_have_attribute("aria-busy", "true")
    assert bar.evaluate("(one) => one.getBoundingClientRect().height") == 2
    assert panel.locator("tbody").inner_html() == rows
    expect(page).to_have_url(f"{site.url}/workspaces/acme")
    let_go()
    page.clock.resume()
    expect(page.locator("#panel-title")).to_have_text("Payments")
    expect(panel).not_to_have_attribute("aria-busy", "true")
    expect(bar).to_have_css("opacity", "0")


def test_an_answer_that_comes_late_does_not_overwrite_a_newer_one(page, site):
    _open(page, f"{site.url}/workspaces/acme")
    let_go = _hold(page, "**/payments")
    page.locator("#tab-payments").click()
    with page.expect_event("requestfailed", _called_off("/payments")):
        page.locator("#tab-analysis").click()
    expect(page.locator("#panel-title")).to_have_text("Analysis")
    let_go()
    _settle(page)
    expect(page.locator("#panel-title")).to_have_text("Analysis")
    expect(page.locator("#tab-analysis")).to_have_attribute("aria-current", "page")
    expect(page).to_have_url(f"{site.url}/workspaces/acme/analysis")
    expect(page.locator("#bar")).to_have_css("opacity", "0")


def test_going_back_calls_off_what_was_clicked_before(page, site):
    _open(page, f"{site.url}/workspaces/acme/usages")
    page.locator("#tab-analysis").click()
    expect(page.locator("#panel-title")).to_have_text("Analysis")
    let_go = _hold(page, "**/payments")
    page.locator("#tab-payments").click()
    with page.expect_event("requestfailed", _called_off("/payments")):
        page.go_back()
    expect(page.locator("#panel-title")).to_have_text("Usages")
    let_go()
    _settle(page)
    expect(page.locator("#panel-title")).to_have_text("Usages")
    expect(page).to_have_url(f"{site.url}/workspaces/acme/usages")


def test_of_two_steps_back_the_second_prevails(page, site):
    _open(page, f"{site.url}/workspaces/acme/usages")
    for name in ("Payments", "Analysis"):
        page.locator(f"#tab-{name.lower()}").click()
        expect(page.locator("#panel-title")).to_have_text(name)
    let_go = _hold(page, "**/payments")
    with page.expect_request("**/payments"):
        page.evaluate("history.back()")
    with page.expect_event("requestfailed", _called_off("/payments")):
        page.evaluate("history.back()")
    expect(page.locator("#panel-title")).to_have_text("Usages")
    let_go()
    _settle(page)
    expect(page.locator("#panel-title")).to_have_text("Usages")
    expect(page).to_have_url(f"{site.url}/workspaces/acme/usages")
    expect(page.locator("#bar")).to_have_css("opacity", "0")


def test_of_two_rows_the_later_one_opens(page, site):
    address = f"{site.url}/workspaces/acme/usages?page=2&upto=68"
    _open(page, address)
    let_go = _hold(page, "**/usages/40")
    page.locator("#usage-40").click()
    with page.expect_event("requestfailed", _called_off("/usages/40")):
        page.locator("#usage-39").click()
    expect(page.locator("#details")).to_be_visible()
    expect(page).to_have_url(re.compile("/usages/39$"))
    let_go()
    _settle(page)
    expect(page).to_have_url(re.compile("/usages/39$"))
    page.keyboard.press("Escape")
    expect(page).to_have_url(address)
    expect(page.locator("#usage-39")).to_be_focused()


def test_a_row_that_was_still_loading_does_not_open_over_another_tab(page, site):
    _open(page, f"{site.url}/workspaces/acme/usages?page=2&upto=68")
    let_go = _hold(page, "**/usages/40")
    page.locator("#usage-40").click()
    with page.expect_event("requestfailed", _called_off("/usages/40")):
        page.locator("#tab-payments").click()
    expect(page.locator("#panel-title")).to_have_text("Payments")
    let_go()
    _settle(page)
    expect(page.locator("#details")).not_to_be_visible()
    expect(page.locator("#bar")).to_have_css("opacity", "0")


def test_after_going_back_the_page_is_as_alive_as_before(page, site, book_at_site):
    book_at_site(make_payment("revived", "1"), make_usage("revived", cost="0.01"))
    page.goto(f"{site.url}/workspaces/revived")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    page.locator("#tab-payments").click()
    expect(page.locator("#panel-title")).to_have_text("Payments")
    page.go_back()
    expect(page.locator("#panel-title")).to_have_text("Usages")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    book_at_site(make_usage("revived", cost="0.05"))
    expect(page.locator("#balance")).to_have_attribute("value", "0.94")
    expect(page.locator("#news")).to_have_text("1 new usage, show")
    page.locator("tbody a").first.click()
    expect(page.locator("#details-title")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#details")).not_to_be_visible()


def test_an_answer_of_a_proxy_in_between_takes_nothing_away(new_context, site, book_at_site):
    book_at_site(make_payment("gateway", "1"), make_usage("gateway", cost="0.01"))
    context = new_context()
    context.faults_expected("502", "503")
    page = context.new_page()
    page.goto(f"{site.url}/workspaces/gateway")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    rows = page.locator("tbody").inner_html()
    page.route(
        "**/payments", lambda route: route.fulfill(status=502, content_type="text/html", body="<h1>Bad gateway</h1>")
    )
    page.locator("#tab-payments").click()
    expect(page.locator("#lost")).to_contain_text("could not be reached. What you see is from before")
    assert page.locator("tbody").inner_html() == rows
    expect(page).to_have_url(f"{site.url}/workspaces/gateway")
    book_at_site(make_usage("gateway", cost="0.000001"))
    expect(page.locator("#news")).to_be_visible()
    expect(page.locator("#lost")).to_contain_text("could not be reached")
    page.unroute("**/payments")
    page.locator("#tab-payments").click()
    expect(page.locator("#panel-title")).to_have_text("Payments")
    expect(page.locator("#lost")).to_have_text("")

    page.route("**/payments/1", lambda route: route.fulfill(status=503, content_type="text/html", body="<h1>Down</h1>"))
    page.locator("#payment-1").click()
    expect(page.locator("h1")).to_have_text("Down")  # as a page of its own, not inside of ours
