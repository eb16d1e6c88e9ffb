"""What the page promises of its amounts, its links and its live changes, each seen as a person would see it."""

from __future__ import annotations

import csv
import io
import json
import re
from decimal import Decimal

import pytest
from playwright.sync_api import expect

from dashboard_factory import make_payment, make_usage
from taximeter_dashboard.formatting import amounts
from waiting import eventually

pytestmark = pytest.mark.browser

SHIFTS = """() => { window.shifts = 0; new PerformanceObserver((list) => {
    for (const one of list.getEntries()) window.shifts += one.value;
}).observe({ type: "layout-shift", buffered: false }); }"""
CHANGES = """() => { window.changes = 0; new MutationObserver((list) => { window.changes += list.length; })
    .observe(document.documentElement, { subtree: true, childList: true, attributes: true, characterData: true }); }"""


def _decimal(text: str) -> Decimal:
    return Decimal(text.replace("$", "").replace(",", "").replace(amounts.MINUS, "-"))


def test_balance_status_last_cost_and_its_receipt_are_one_click_away(page, site):
    page.goto(f"{site.url}/workspaces/acme")
    for selector in ("#balance", "#status", "tbody tr:first-child td.number .amount"):
        expect(page.locator(selector).first).to_be_in_viewport()
    cost = page.locator("tbody tr:first-child td.number .amount").first.inner_text()
    page.locator("tbody tr:first-child a").click()
    expect(page.locator("#details .receipt .total, #details .total")).to_contain_text(cost)


def test_a_cost_is_the_same_wherever_it_stands(new_context, site):
    page = new_context().new_page()
    page.goto(f"{site.url}/workspaces/acme/usages?page=4&upto=68")
    row = page.locator("tr", has=page.locator("#usage-7"))
    assert row.locator("td.number .amount").first.inner_text() == "$0.0000325"
    assert row.locator("td.number data").first.get_attribute("value") == "0.0000325"
    page.locator("#usage-7").click()
    expect(page.locator("#details-title")).to_contain_text("$0.0000325")
    expect(page.locator("#details .receipt .total .amount")).to_have_text("$0.0000325")
    event = page.locator("#event-id").inner_text()
    rows = csv.DictReader(io.StringIO(page.request.get(f"{site.url}/workspaces/acme/export.csv").text()))
    assert {one["cost_usd"] for one in rows if one["event_id"] == event} == {"0.0000325"}
    answer = page.request.get(f"{site.url}/api/v1/workspaces/acme/usages/{event}")
    assert json.loads(answer.text())["cost"] == "0.0000325"


@pytest.mark.parametrize("workspace", ["acme", "spent", "slim", "evil"])
def test_payments_less_cost_are_the_balance_to_the_last_digit(page, site, workspace: str):
    page.goto(f"{site.url}/workspaces/{workspace}")
    payments, cost, balance = (
        _decimal(page.locator(".facts .sum .term").nth(place).inner_text()) for place in range(3)
    )
    assert payments - cost == balance
    assert Decimal(page.locator("#balance").get_attribute("value")) == balance


def test_keyboard_alone_filters_opens_copies_and_closes(new_context, site):
    page = new_context(permissions=["clipboard-read", "clipboard-write"]).new_page()
    page.goto(f"{site.url}/workspaces/acme")

    def tab_to(selector: str, most: int = 60) -> None:
        for _ in range(most):
            page.keyboard.press("Tab")
            if page.evaluate("(one) => document.activeElement?.matches(one)", selector):
                return
        pytest.fail(f"Tab never reached {selector}")

    tab_to("#f-tool")
    page.keyboard.press("c")
    expect(page.locator("#f-tool")).to_have_value("chat")
    tab_to("#f-apply")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("tool=chat"))
    expect(page.locator("#panel-title")).to_be_focused()
    tab_to("tbody a[data-details]")
    row = page.evaluate("document.activeElement.id")
    page.keyboard.press("Enter")
    expect(page.locator("#details-title")).to_be_focused()
    tab_to("#details [data-copy=input-text]")
    page.keyboard.press("Enter")
    expect(page.locator("#details [data-copy=input-text]")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "What is a lighthouse?"
    page.keyboard.press("Shift+Tab")
    tab_to("#details .close")
    page.keyboard.press("Enter")
    expect(page.locator("#details")).not_to_be_visible()
    expect(page.locator(f"#{row}")).to_be_focused()
    expect(page).to_have_url(re.compile("tool=chat"))


def test_a_thousand_arrivals_move_no_row(new_context, site, book_many):
    page = new_context().new_page()
    book_many([make_usage("busy", f"early-{n}", cost="0.001") for n in range(80)], [make_payment("busy", "100")])
    page.goto(f"{site.url}/workspaces/busy/usages?page=3&upto=80")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    page.evaluate("scrollTo(0, 400)")
    rows = page.locator("tbody").inner_html()
    places = "[...document.querySelectorAll('tbody tr')].map((one) => one.getBoundingClientRect().top)"
    before = page.evaluate(places)
    page.evaluate(SHIFTS)
    for batch in range(10):
        book_many([make_usage("busy", f"late-{batch}-{n}", cost="0.001") for n in range(100)])
    expect(page.locator("#news")).to_have_text("1,000 new usages, show", timeout=20_000)
    assert page.locator("tbody").inner_html() == rows
    assert page.evaluate(places) == before
    assert page.evaluate("window.shifts") == 0
    page.locator("#news").click()
    expect(page.locator("caption")).to_have_text("Usages, newest first, page 1 of 54")


def test_a_flip_changes_pill_sentence_and_title_and_is_announced_once(new_context, site, book_at_site):
    page = new_context().new_page()
    book_at_site(make_payment("flip", "1"), make_usage("flip", cost="0.5"))
    page.goto(f"{site.url}/workspaces/flip")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    page.evaluate("""() => { window.told = []; new MutationObserver(() => {
        const text = document.querySelector("#told").textContent; if (text) window.told.push(text);
    }).observe(document.querySelector("#told"), { childList: true, characterData: true, subtree: true }); }""")
    book_at_site(make_usage("flip", "the-last-straw", cost="0.7"))
    expect(page.locator("#status")).to_have_text("Insufficient")
    expect(page.locator("#sentence")).to_contain_text("Usage the-…traw (chat, $0.70) switched it off. $0.08 or more")
    expect(page).to_have_title(re.compile(rf"^Insufficient · {amounts.MINUS}\$0\.20 · AI Tracking · flip$"))
    book_at_site(make_usage("flip", "after-it", cost="0.000001"))
    eventually(lambda: page.evaluate("window.told.some((text) => text.startsWith('Balance'))"))
    assert ["switched it off" in text for text in page.evaluate("window.told")] == [True, False]
    page.locator("#cause").click()
    expect(page.locator("#details-title")).to_have_text("chat · gpt-4o · $0.70")
    page.keyboard.press("Escape")
    expect(page.locator("#cause")).to_be_focused()


def test_a_paused_page_does_not_change(new_context, site, book_at_site):
    page = new_context().new_page()
    book_at_site(make_payment("paused", "5"))
    page.goto(f"{site.url}/workspaces/paused")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    page.locator("#live").click()
    expect(page.locator("#live")).to_have_attribute("data-state", "paused")
    beside = page.context.new_page()
    beside.goto(f"{site.url}/workspaces/paused")
    expect(beside.locator("#live")).to_have_attribute("data-state", "live")
    page.evaluate(CHANGES)
    for left in ("4", "3", "2"):
        book_at_site(make_usage("paused", cost="1"))
        expect(beside.locator("#balance")).to_have_attribute("value", left)
    assert page.evaluate("window.changes") == 0


@pytest.mark.soak
def test_a_paused_page_does_not_change_in_a_minute(new_context, site, book_at_site):
    page = new_context().new_page()
    book_at_site(make_payment("minute", "500"))
    page.goto(f"{site.url}/workspaces/minute")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    page.locator("#live").click()
    expect(page.locator("#live")).to_have_attribute("data-state", "paused")
    page.evaluate(CHANGES)
    asked = []
    page.on("request", lambda one: asked.append(one.url))
    for _ in range(60):
        book_at_site(make_usage("minute", cost="1"))
        page.wait_for_timeout(1_000)
    assert page.evaluate("window.changes") == 0
    assert asked == []
    page.locator("#live").click()
    expect(page.locator("#news")).to_have_text("60 new usages, show")
    assert page.evaluate("window.changes") > 0


def test_an_interrupted_stream_says_so_and_comes_back(new_context, site):
    context = new_context()
    context.faults_expected("net::ERR_INTERNET_DISCONNECTED")
    page = context.new_page()
    page.goto(f"{site.url}/workspaces/harbor")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    page.locator("#live").click()
    context.set_offline(True)
    page.locator("#live").click()
    expect(page.locator("#lost")).to_have_text(re.compile(r"^Updates interrupted, retrying\. As of \d\d:\d\d:\d\d\.$"))
    context.set_offline(False)
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    expect(page.locator("#lost")).to_have_text("")


def test_nothing_is_left_in_the_browser_and_nothing_runs(new_context, site):
    page = new_context().new_page()
    page.add_init_script("""window.violations = [];
        document.addEventListener("securitypolicyviolation", (one) => window.violations.push(one.violatedDirective));""")
    page.on("dialog", lambda _: pytest.fail("a script ran"))
    for path in ("evil", "evil/usages/1", "evil/usages/2", "evil/payments", "evil/analysis", "evil/settings"):
        answer = page.goto(f"{site.url}/workspaces/{path}")
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert page.evaluate("window.violations") == []
        assert page.locator("img, iframe, object, embed").count() == 0
    page.locator("#tab-usages").click()
    page.locator("tbody a").first.click()
    expect(page.locator("#details")).to_be_visible()
    page.keyboard.press("Escape")
    page.locator("#tab-payments").click()
    expect(page.locator("#panel-title")).to_have_text("Payments")
    assert page.evaluate("sessionStorage.length + localStorage.length") == 0


def test_a_transaction_without_a_provider_is_shown(page, site, book_at_site):
    book_at_site(make_payment("plain", "5", transaction={"reference": "invoice 7"}))
    page.goto(f"{site.url}/workspaces/plain/payments")
    expect(page.locator("tbody tr")).to_contain_text("invoice 7")
