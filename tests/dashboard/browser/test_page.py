"""The page in a real browser: what an owner does, and what must never happen."""

from __future__ import annotations

import datetime as dt
import itertools
import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from dashboard_factory import make_payment, make_usage
from taximeter_dashboard.pages import live

pytestmark = pytest.mark.browser

STATES = {
    "usages": "acme",
    "oldest": "acme/usages?sort=oldest",
    "filtered": "acme/usages?tool=chat",
    "no match": "acme/usages?tool=none",
    "page 3": "acme/usages?page=3&upto=68",
    "details": "acme/usages/1",
    "payments": "acme/payments",
    "payment": "acme/payments/2",
    "notices": "acme/notices",
    "settings": "acme/settings",
    "budgets": "slim/budgets",
    "statements": "acme/statements",
    "a statement": f"acme/statements/{dt.datetime.now(dt.UTC):%Y-%m}",
    "no budgets": "acme/budgets",
    "analysis": "acme/analysis",
    "analysis by model": "acme/analysis?span=day&by=model",
    "low": "slim",
    "insufficient": "spent",
    "new": "harbor",
    "strange texts": "evil",
    "long contents": "evil/usages/2",
    "dialog": "acme",
    "why AI was off": "spent/analysis?span=day",
    "off and on": "turns/analysis?span=day&flips=2",
    "unknown": "nobody-knows-it",
    "zones": "../zone",
    "workspaces": "..",
}
CLIPPED = """() => [...document.querySelectorAll('main *')].filter((one) => {
    if (!one.offsetParent || one.closest('svg') || getComputedStyle(one).position === 'absolute') return false;
    if (one.closest('.unseen, pre, td.excerpt, [role=region]')) return false;
    const box = one.getBoundingClientRect();
    return box.width && (box.right > document.documentElement.clientWidth + 1 || box.left < -1);
}).map((one) => one.outerHTML.slice(0, 80))"""


@pytest.mark.parametrize("state", STATES)
def test_axe_finds_nothing_in_any_state(new_context, site, state: str):
    context = new_context()
    context.faults_expected("404 (Not Found)" if state == "unknown" else "no fault is expected")
    page = context.new_page()
    page.goto(f"{site.url}/workspaces/{STATES[state]}")
    if state == "dialog":
        page.locator("tbody a[data-details]").first.click()
        page.locator("#details-title").wait_for()
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    axe, found = Axe(), {}
    for width, scheme in itertools.product((1280, 320), ("light", "dark")):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        for one in axe.run(page).response["violations"]:
            found[width, scheme, one["id"]] = [node["html"][:120] for node in one["nodes"]][:3]
    assert found == {}


@pytest.mark.parametrize(
    "path",
    [
        "acme",
        "spent",
        "evil",
        "evil/usages/1",
        "evil/payments",
        "acme/usages/1",
        "acme/analysis",
        "acme/notices",
        "acme/settings",
        "turns/analysis",
    ],
)
def test_nothing_reaches_beyond_its_edge(new_context, site, path: str):
    page = new_context().new_page()
    page.goto(f"{site.url}/workspaces/{path}")
    for width in (320, 390, 768, 1280, 3840):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate(CLIPPED) == [], width
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width


CUT = """() => [...document.querySelectorAll('main data')].filter((one) => {
    const around = one.closest('dd, td, p').getBoundingClientRect(), card = one.closest('.card').getBoundingClientRect();
    return [...one.getClientRects()].some((box) => box.width && box.right > Math.min(around.right, card.right) + 1);
}).map((one) => one.innerText)"""


def test_no_digit_of_an_amount_is_cut_off(new_context, site, book_many):
    book_many(
        [make_usage("vast", cost=cost) for cost in ("0.000000000001", "123456789.123456789012")],
        [make_payment("vast", "1000000000000")],
    )
    book_many([make_usage("thirds", cost="3.333333333333")], [make_payment("thirds", "10020")])
    page = new_context().new_page()
    for path in ("vast", "vast/payments", "thirds"):
        page.goto(f"{site.url}/workspaces/{path}")
        for width in (320, 390, 768, 1040, 1280, 3840):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate(CUT) == [], (path, width)
    page.goto(site.url)
    row = page.get_by_role("row", name="vast")
    expect(row.locator(".number")).to_have_text("$999,876,543,210.88")
    page.set_viewport_size({"width": 320, "height": 900})
    expect(row.locator(".narrow")).to_have_text("$999,876,543,210.88")
    edge = page.locator(".card").bounding_box()
    for cell in row.locator(":scope > :visible").all():
        box = cell.bounding_box()
        assert box["x"] + box["width"] <= edge["x"] + edge["width"]
    row.click(position={"x": 200, "y": 10})
    expect(page).to_have_url(f"{site.url}/workspaces/vast")


def test_statuses_at_the_boundary(page, site):
    page.goto(f"{site.url}/workspaces/edge")
    expect(page.locator("#status")).to_have_text("Low")
    expect(page.locator("#balance")).to_have_text("−$0.12")  # noqa: RUF001
    expect(page.locator("#sentence")).to_have_text("AI is on. Nothing is left: the next cost switches it off.")
    page.goto(f"{site.url}/workspaces/spent")
    expect(page.locator("#status")).to_have_text("Insufficient")
    expect(page.locator("#balance")).to_have_text("−$0.120000000001")  # noqa: RUF001
    expect(page.locator("#sentence")).to_contain_text("switched it off. $0.01 or more switches it on; $0.13 ends the")
    expect(page.locator("#credit")).to_have_attribute("href", "/buy/spent")
    assert page.title().startswith("Insufficient · −$0.120000000001 · AI Tracking · spent")  # noqa: RUF001
    page.goto(site.url)
    for workspace, balance in (("edge", "−$0.12"), ("spent", "−$0.120000000001")):  # noqa: RUF001
        expect(page.get_by_role("row", name=workspace).locator(".number")).to_have_text(balance)


def test_details_open_in_a_dialog_with_a_link_of_their_own(new_context, site):
    context = new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(f"{site.url}/workspaces/acme/usages?page=2&upto=68")
    page.mouse.wheel(0, 300)
    row = page.locator("#usage-40")
    row.focus()
    scroll = page.evaluate("scrollY")
    page.keyboard.press("Enter")
    dialog = page.locator("#details")
    expect(dialog).to_be_visible()
    expect(page.locator("#details-title")).to_be_focused()
    expect(page.locator("#details-title")).to_have_text("chat · gpt-4o · $0.0000325")
    assert page.url.endswith("/workspaces/acme/usages/40")
    receipt = dialog.locator(".receipt")
    expect(receipt).to_contain_text("$2.50 per 1M ($0.0000025 each)")
    expect(receipt.locator(".total")).to_contain_text("$0.0000325")
    expect(dialog).to_contain_text(re.compile(r"version \d+ of the price book \(\d+ \w+, \d\d:\d\d:\d\d\)"))
    dialog.locator("[data-copy=input-text]").click()
    expect(dialog.locator("[data-copy=input-text]")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "What is a lighthouse?"
    page.keyboard.press("Escape")
    expect(dialog).not_to_be_visible()
    expect(row).to_be_focused()
    expect(page).to_have_url(re.compile(r"page=2&upto=68$"))
    assert abs(page.evaluate("scrollY") - scroll) < 2

    row.click()
    expect(dialog).to_be_visible()
    page.go_back()
    expect(dialog).not_to_be_visible()
    expect(page).to_have_url(re.compile(r"page=2&upto=68$"))
    expect(row).to_be_visible()

    fresh = new_context().new_page()
    fresh.goto(f"{site.url}/workspaces/acme/usages/40")
    expect(fresh.locator("#panel .receipt .total")).to_contain_text("$0.0000325")


def test_pages_by_keyboard_keep_what_was_read(page, site):
    page.goto(f"{site.url}/workspaces/acme")
    page.locator("#page-next").focus()
    page.keyboard.press("Enter")
    expect(page.locator("caption")).to_have_text("Usages, newest first, page 2 of 4")
    expect(page.locator("#panel-title")).to_be_focused()
    assert "page=2&upto=68" in page.url
    assert page.title().endswith("page 2 of 4")
    page.locator("#tab-payments").click()
    expect(page.locator("#panel-title")).to_have_text("Payments")
    expect(page.locator("#tab-payments")).to_have_attribute("aria-current", "page")
    page.go_back()
    expect(page.locator("caption")).to_have_text("Usages, newest first, page 2 of 4")
    page.locator("#goto").fill("4")
    page.locator("#goto").press("Enter")
    expect(page.locator("caption")).to_have_text("Usages, newest first, page 4 of 4")
    expect(page.locator("tbody tr")).to_have_count(8)
    assert page.evaluate("sessionStorage.length") == 0


def test_everything_reads_without_javascript(new_context, site):
    page = new_context(java_script_enabled=False).new_page()
    page.goto(f"{site.url}/workspaces/acme")
    page.locator("#page-last").click()
    expect(page.locator("caption")).to_have_text("Usages, newest first, page 4 of 4")
    page.locator("#usage-3").click()
    expect(page.locator("#details-title")).to_have_text("chat · gpt-4o · $0.0000325")
    page.locator("#tab-payments").click()
    page.locator("#payment-2").click()
    expect(page.locator("#details-title")).to_have_text("Adjustment · −$1.50")  # noqa: RUF001


def test_strange_texts_are_only_ever_text(page, site):
    page.on("dialog", lambda _: pytest.fail("a script ran"))
    for path in ("evil", "evil/usages/1", "evil/usages/2", "evil/payments", "evil/payments/1"):
        page.goto(f"{site.url}/workspaces/{path}")
        assert page.locator("img").count() == 0
        expect(page.locator("main")).to_contain_text("<img src=x onerror=alert(1)>")
    page.goto(f"{site.url}/workspaces/evil/usages/2")
    with page.expect_download() as download:
        page.get_by_text("Download all of it").click()
    assert len(download.value.path().read_bytes()) > 600_000


def test_letters_from_right_to_left_turn_no_amount_around(new_context, site, book_at_site):
    book_at_site(make_usage("rtl", tool="سؤال", model=None, cost="0.123"))
    page = new_context(viewport={"width": 375, "height": 900}).new_page()
    page.goto(f"{site.url}/workspaces/rtl/usages/1")
    order = """(selector) => {
        const title = document.querySelector(selector), amount = document.createRange(), last = document.createRange();
        const text = [...title.childNodes].at(-1), at = text.data.indexOf('$');
        amount.setStart(text, at), amount.setEnd(text, at + 1);
        last.setStart(text, at + 5), last.setEnd(text, at + 6);
        return amount.getBoundingClientRect().x < last.getBoundingClientRect().x;
    }"""
    assert page.evaluate(order, "#details-title")
    assert page.evaluate("(t) => t.endsWith('(\u2068سؤال\u2069, $0.123)')", page.locator("#cause").inner_text())  # noqa: RUF001


def test_amounts_are_written_out_everywhere(page, site):
    for path in ("acme", "spent", "acme/payments", "acme/usages/1"):
        page.goto(f"{site.url}/workspaces/{path}")
        text = page.evaluate(
            "[...document.querySelectorAll('pre')].forEach((one) => one.remove()), document.body.innerText"
        )
        assert not re.search(r"\d[eE][+-]?\d|NaN|<\$|-\$", text), path


def test_times_are_in_the_viewers_zone(new_context, site):
    page = new_context(timezone_id="Asia/Kathmandu").new_page()
    page.goto(f"{site.url}/workspaces/acme")
    expect(page.locator(".zone")).to_contain_text(re.compile("Asia/Kath?mandu, UTC\\+5:45"))
    moment = page.locator("tbody time").first.get_attribute("datetime")
    local = page.evaluate("(t) => new Date(t).toLocaleTimeString('en-GB', {timeZone: 'Asia/Kathmandu'})", moment)
    expect(page.locator("tbody time").first).to_contain_text(local)


def test_utc_is_told_on_focus_in_the_last_row_too(page, site):
    page.goto(f"{site.url}/workspaces/edge")
    page.locator("#sort").focus()
    page.keyboard.press("Tab")
    expect(page.locator("#usage-1")).to_be_focused()
    hint = page.locator("#usage-1 time")
    assert hint.evaluate("(one) => getComputedStyle(one, '::after').content") == f'"{hint.get_attribute("title")}"'
    room = page.locator(".table").bounding_box()
    row = page.locator("tbody tr").bounding_box()
    bottom = float(hint.evaluate("(one) => parseFloat(getComputedStyle(one, '::after').bottom)"))
    assert row["y"] + row["height"] - bottom <= room["y"] + room["height"]


def test_filters_narrow_the_list_and_its_total(page, site):
    page.goto(f"{site.url}/workspaces/acme")
    page.locator("#f-tool").select_option("image")
    page.locator("#f-apply").click()
    expect(page.locator(".status-line")).to_have_text(re.compile(r"^3 usages · \$0\.12 total · average \$0\.04$"))
    expect(page.locator("tbody tr")).to_have_count(3)
    expect(page.locator("#f-tool")).to_have_value("image")
    page.locator("tbody a").first.click()
    expect(page.locator("#details")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page).to_have_url(re.compile("tool=image"))
    page.locator("#f-clear").click()
    expect(page.locator("caption")).to_have_text(re.compile("^Usages, newest first, page 1"))
    page.locator("#f-least").select_option("1.00")
    page.locator("#f-apply").click()
    expect(page.locator(".empty")).to_contain_text("No usages match.")
    page.goto(f"{site.url}/workspaces/acme/usages?tool=chat")
    expect(page.locator("caption")).to_have_text("Matching usages, newest first, page 1 of 4")
    page.locator("#page-next").click()
    expect(page.locator("#usage-45")).to_be_visible()
    expect(page.locator("caption")).to_have_text("Matching usages, newest first, page 2 of 4")
    assert page.title().endswith(" · page 2 of 4")
    page.locator("#page-last").click()
    expect(page.locator("#usage-1")).to_be_visible()
    expect(page.locator("#page-next")).to_have_count(0)
    page.locator("#page-previous").click()
    expect(page.locator("#usage-21")).to_be_visible()
    page.locator("#f-id").fill("usage-7")
    page.locator("#f-id").press("Enter")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator(".status-line")).to_contain_text("1 usage ·")
    page.goto(f"{site.url}/workspaces/acme/usages?tool=elsewhere&model=other")
    expect(page.locator(".empty")).to_contain_text("No usages match.")
    expect(page.locator("#f-tool")).to_have_value("elsewhere")
    expect(page.locator("#f-model")).to_have_value("other")


def test_what_is_booked_appears_without_moving_what_is_read(new_context, site, book_at_site):
    page = new_context().new_page()
    page.goto(f"{site.url}/workspaces/live")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    expect(page.locator("#status")).to_have_text("Sufficient")
    rows = page.locator("tbody tr").all_inner_texts()
    book_at_site(make_usage("live", cost="0.05"), make_usage("live", cost="0.05"))
    expect(page.locator("#news")).to_have_text("2 new usages, show")
    expect(page.locator("#status")).to_have_text("Sufficient")
    assert page.locator("tbody tr").all_inner_texts() == rows
    book_at_site(make_usage("live", cost="1.50"))
    expect(page.locator("#status")).to_have_text("Insufficient", timeout=5_000)
    expect(page.locator("#told")).to_contain_text("switched it off")
    assert page.title().startswith("Insufficient · ")
    page.locator("#live").click()
    expect(page.locator("#live")).to_have_attribute("data-state", "paused")
    before = page.locator("main").inner_text()
    beside = page.context.new_page()
    beside.goto(f"{site.url}/workspaces/live")
    expect(beside.locator("#live")).to_have_attribute("data-state", "live")
    expect(beside.locator("#status")).to_have_text("Insufficient")
    book_at_site(make_payment("live", "10"))
    expect(beside.locator("#status")).to_have_text("Sufficient")
    assert page.locator("main").inner_text() == before
    page.locator("#live").click()
    expect(page.locator("#status")).to_have_text("Sufficient")
    page.locator("#news").click()
    expect(page.locator("tbody tr")).to_have_count(4)


def test_what_is_booked_as_a_page_opens_is_not_missed(new_context, site, book_at_site, monkeypatch):
    """The server's look at the versions of what is open, begun by another page, is seconds away."""
    monkeypatch.setattr(live, "LOOK_SECONDS", 4.0)
    book_at_site(make_usage("early", cost="0.01"))
    context = new_context()
    for workspace_id in ("acme", "early"):
        page = context.new_page()
        page.goto(f"{site.url}/workspaces/{workspace_id}")
        expect(page.locator("#live")).to_have_attribute("data-state", "live")
    book_at_site(make_usage("early", cost="0.01"))
    expect(page.locator("#news")).to_have_text("1 new usage, show", timeout=15_000)


def test_an_owner_changes_a_limit_and_sees_its_effect(page, site):
    page.goto(f"{site.url}/workspaces/slim/settings")
    page.locator("#s-low").fill("-0.1")
    expect(page.locator(".effect >> nth=0")).to_contain_text("the balance would be sufficient")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#status")).to_have_text("Sufficient")
    expect(page.locator(".log")).to_contain_text("Warn below: $0.00 → −$0.10")  # noqa: RUF001
    page.locator("#s-low").fill("0")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#status")).to_have_text("Low")
