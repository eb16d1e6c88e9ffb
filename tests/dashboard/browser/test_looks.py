"""Statuses without colour, every page of a long log, a database that is away."""

from __future__ import annotations

import re
import zlib
from itertools import combinations

import pytest
from playwright.sync_api import expect

from benchmarks import generate
from proxy import Proxy
from taximeter_dashboard.formatting.amounts import MINUS

pytestmark = pytest.mark.browser

STATUSES = {"sufficient": "acme", "low": "slim", "insufficient": "spent"}


def _grey(png: bytes) -> list[list[int]]:
    """The rows of an 8-bit PNG as luminances."""
    place, data = 8, b""
    while place < len(png):
        length, kind = int.from_bytes(png[place : place + 4]), png[place + 4 : place + 8]
        if kind == b"IHDR":
            width, depth, color = int.from_bytes(png[place + 8 : place + 12]), png[place + 16], png[place + 17]
        if kind == b"IDAT":
            data += png[place + 8 : place + 8 + length]
        place += 12 + length
    assert (depth, color in {2, 6}) == (8, True)
    size = 3 if color == 2 else 4
    raw, stride, above, rows = zlib.decompress(data), width * size, bytes(width * size), []
    for start in range(0, len(raw), stride + 1):
        line = bytearray(raw[start + 1 : start + 1 + stride])
        for x in range(stride):
            left = line[x - size] if x >= size else 0
            corner = above[x - size] if x >= size else 0
            guess = left + above[x] - corner
            nearest = min((left, above[x], corner), key=lambda one: abs(guess - one))
            line[x] = (line[x] + (0, left, above[x], (left + above[x]) // 2, nearest)[raw[start]]) % 256
        above = bytes(line)
        rows.append([(299 * line[x] + 587 * line[x + 1] + 114 * line[x + 2]) // 1000 for x in range(0, stride, size)])
    return rows


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_statuses_are_told_apart_without_colour(new_context, site, scheme: str):
    page = new_context(color_scheme=scheme, device_scale_factor=2).new_page()
    devtools = page.context.new_cdp_session(page)
    devtools.send("Emulation.setEmulatedVisionDeficiency", {"type": "achromatopsia"})
    icons, words, strips = {}, {}, {}
    for status, workspace in STATUSES.items():
        page.goto(f"{site.url}/workspaces/{workspace}")
        icons[status] = _grey(page.locator("#status .icon").screenshot(animations="disabled"))
        words[status] = page.locator("#status").inner_text()
        strips[status] = page.locator(".strip li").evaluate_all("(all) => all.findIndex((one) => one.ariaCurrent)")
    assert len(set(words.values())) == len(set(strips.values())) == 3
    for one, other in combinations(STATUSES, 2):
        # Where the icon lies between two pixels, its picture is a row or a column larger.
        rows, columns = (min(len(icons[one]), len(icons[other])), min(len(icons[one][0]), len(icons[other][0])))
        pixels = [abs(icons[one][y][x] - icons[other][y][x]) for y in range(rows) for x in range(columns)]
        # A circle, a triangle and an octagon: a tenth of the pixels differ clearly.
        assert sum(pixel > 60 for pixel in pixels) > len(pixels) / 10, (one, other)


def test_every_page_of_a_long_log_has_its_twenty_rows(new_context, site, database_url):
    shape = generate.Shape(usages=10_000, workspaces=1, days=3, payloads=True, prefix="long-")
    generate.fill(database_url, shape, connections=1)
    own = site.beside(database_url)
    try:
        page = new_context(at=own).new_page()
        workspace = shape.workspace_id(0)
        for number in (1, 2, 250, 251, 499, 500):
            query = f"?page={number}&upto=10000" if number > 1 else ""
            page.goto(f"{own.url}/workspaces/{workspace}/usages{query}")
            expect(page.locator("caption")).to_have_text(f"Usages, newest first, page {number} of 500")
            seen = page.locator("tbody a").evaluate_all("(all) => all.map((one) => +one.id.split('-')[1])")
            assert seen == list(range(10_000 - (number - 1) * 20, 10_000 - number * 20, -1))
        expect(page.locator("#page-next")).to_have_count(0)
        expect(page.locator("#page-last")).to_have_count(0)
        page.goto("about:blank")
    finally:
        own.stop()


def test_without_its_database_the_panel_says_so(new_context, site):
    address = re.search(r"@([^:/]+):(\d+)/", site.owner_url)
    with Proxy(address[1], int(address[2])) as proxy:
        own = site.beside(proxy.url(site.owner_url))
        try:
            context = new_context(at=own)
            context.faults_expected("503")
            page = context.new_page()
            page.goto(f"{own.url}/workspaces/acme")
            expect(page.locator("#live")).to_have_attribute("data-state", "live")
            page.locator("#live").click()
            proxy.refuse()
            page.locator("#tab-payments").click()
            expect(page.locator("#panel")).to_contain_text(
                re.compile(r"Payments could not be loaded\.\s+The balance above is from \d\d:\d\d:\d\d\.\s+Try again")
            )
            expect(page.locator("#panel")).to_contain_text(re.compile(r"Request [0-9a-f]{8}"))
            expect(page.locator("#balance")).to_be_visible()
            expect(page.locator("#tabs [aria-current]")).to_have_text("Payments")
            page.goto(f"{own.url}/workspaces/acme/usages")
            expect(page.locator("main")).to_contain_text("The ledger cannot be reached at the moment.")
            expect(page.locator("main")).to_contain_text(re.compile(r"Request [0-9a-f]{8}"))
            proxy.refuse(False)
            page.get_by_role("link", name="Try again").click()
            expect(page.locator("tbody tr")).to_have_count(20)
            page.goto("about:blank")
        finally:
            own.stop()


def test_the_zone_is_chosen_from_a_list(new_context, site):
    page = new_context(java_script_enabled=False).new_page()
    page.goto(f"{site.url}/workspaces/acme/payments")
    page.locator("#zone-change").click()
    page.locator("#zone").select_option("Asia/Kolkata")
    page.get_by_role("button", name="Use it").click()
    expect(page).to_have_url(f"{site.url}/workspaces/acme/payments")
    expect(page.locator(".zone")).to_contain_text("Times in Asia/Kolkata, UTC+5:30")


def test_why_ai_was_off_is_drawn_and_listed(new_context, site, sql):
    page = new_context().new_page()
    page.goto(f"{site.url}/workspaces/spent/analysis?span=day")
    figure = page.get_by_role("img", name=re.compile(r"^Balance from .* AI went off once\.$"))
    expect(figure).to_be_visible()
    expect(figure.locator(".wide-chart .flip.off")).to_have_count(1)
    row = page.locator(".flips tbody tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("Usage")
    expect(row).to_contain_text(re.compile(rf"\$0\.020000000001\).*until now.*{MINUS}\$0\.120000000001", re.DOTALL))
    row.locator("a").click()
    expect(page.locator("#details-title")).to_contain_text("$0.020000000001")
    assert sql("SELECT count(*) FROM taximeter.status_changes WHERE workspace_id = 'spent'") == [(2,)]


def test_forced_colours_leave_what_is_current_to_see(new_context, site):
    page = new_context(forced_colors="active").new_page()
    for status, workspace in STATUSES.items():
        page.goto(f"{site.url}/workspaces/{workspace}/analysis")
        marks = page.locator(".strip .mark").evaluate_all(
            "(all) => all.map((one) => getComputedStyle(one).borderWidth)"
        )
        assert [width == "5px" for width in marks] == [one == status for one in ("insufficient", "low", "sufficient")]
        for current in ("#tab-analysis", "#span-month", "#by-tool"):
            expect(page.locator(current)).to_have_css("outline-style", "solid")
        expect(page.locator("#tab-usages")).to_have_css("outline-style", "none")


def test_paper_holds_what_is_read_and_nothing_to_click(page, site):
    page.goto(f"{site.url}/workspaces/acme/usages?tool=chat")
    page.emulate_media(media="print")
    for shown in ("#balance", "#status", ".status-line", "#usage-65", "#f-tool"):
        expect(page.locator(shown)).to_be_visible()
    for hidden in ("#live", "#tabs", "#export", ".pager", "#f-apply"):
        expect(page.locator(hidden)).to_be_hidden()
    page.goto(f"{site.url}/workspaces/evil/usages/2")
    page.emulate_media(media="print")
    expect(page.locator("#input-text")).to_have_css("max-height", "none")


@pytest.mark.parametrize("path", ["/", "/workspaces/acme", "/workspaces/acme/payments"])
def test_a_row_shows_that_it_leads_somewhere(new_context, site, path: str):
    """Without a pointer over it, for a finger has none."""
    page = new_context(has_touch=True, viewport={"width": 390, "height": 844}).new_page()
    page.goto(site.url + path)
    link = page.locator("tbody th a").first
    assert link.evaluate("(it) => getComputedStyle(it).textDecorationLine") == "underline"
