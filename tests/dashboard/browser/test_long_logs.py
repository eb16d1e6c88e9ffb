"""Long logs: the same page wherever it lies, and days that are the viewer's."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from playwright.sync_api import expect

from benchmarks import generate
from taximeter_db import connect

pytestmark = pytest.mark.browser

COUNT = 10_000_000
PAGES = COUNT // 20
# Of ten million usages those that are looked at: whatever else a page read, it would not find. They were all used up, so
# that no pace is measured; and nothing is left to roll up.
SPARSE = f"""
INSERT INTO taximeter.workspaces (workspace_id, usage_count, usage_cost, balance)
VALUES ('vast', {COUNT}, {COUNT}, -{COUNT});
INSERT INTO taximeter.rollup_progress (workspace_id, seq) VALUES ('vast', {COUNT});
INSERT INTO taximeter.usages (seq, entry, price_version, occurred_at, recorded_at, cost, balance_after, workspace_id,
                              event_id, tool, provider, model, quantities)
SELECT n, n, 1, at, at, 1, -n, 'vast', 'event-' || n, 'chat', 'p', 'm', '{{}}'
FROM (SELECT n, now() - ({COUNT} - n) * interval '1 millisecond' AS at FROM generate_series(1, {COUNT}, 1) AS n
      WHERE n <= 60 OR n BETWEEN {COUNT // 2 - 40} AND {COUNT // 2 + 60} OR n > {COUNT - 60}) AS found
"""


@pytest.fixture
def vast(database_url, site):
    with connect.connection(database_url) as conn:
        for statement in SPARSE.split(";\n"):
            conn.execute(statement)
    own = site.beside(database_url)
    yield own
    own.stop()


def _numbers(page) -> list[int]:
    return page.locator("tbody a").evaluate_all("(all) => all.map((one) => +one.id.split('-')[1])")


@pytest.mark.parametrize("sort", ["newest", "oldest"])
def test_the_first_the_middle_and_the_last_of_500_000_pages(new_context, vast, sort: str):
    page = new_context(at=vast).new_page()
    asked = "" if sort == "newest" else "sort=oldest&"

    def check(number: int) -> None:
        expect(page.locator("caption")).to_have_text(f"Usages, {sort} first, page {number:,} of {PAGES:,}")
        low = (number - 1) * 20
        expected = range(COUNT - low, COUNT - low - 20, -1) if sort == "newest" else range(low + 1, low + 21)
        assert _numbers(page) == list(expected)

    for number in (1, 2, PAGES // 2 - 1, PAGES // 2, PAGES // 2 + 1, PAGES - 1, PAGES):
        page.goto(f"{vast.url}/workspaces/vast/usages?{asked}page={number}&upto={COUNT}")
        check(number)
    expect(page).to_have_title(re.compile(f"page {PAGES:,} of {PAGES:,}$"))
    page.locator("#page-first").click()
    check(1)
    page.locator("#page-last").click()
    check(PAGES)
    page.locator("#page-previous").click()
    check(PAGES - 1)
    page.locator("#goto").fill(str(PAGES // 2))
    page.locator("#goto").press("Enter")
    check(PAGES // 2)
    page.locator("#page-next").click()
    check(PAGES // 2 + 1)
    page.goto("about:blank")


@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "America/St_Johns"])
def test_day_totals_are_those_of_the_viewers_zone(new_context, site, database_url, zone: str):
    shape = generate.Shape(usages=3_000, workspaces=1, days=40, prefix="days-")
    generate.fill(database_url, shape, connections=1)
    own = site.beside(database_url)
    try:
        page = new_context(at=own, timezone_id=zone).new_page()
        page.goto(f"{own.url}/workspaces/{shape.workspace_id(0)}/analysis")
        expect(page.locator(".zone")).to_contain_text(re.compile(r"UTC(\+5:45|\u22123:30)"))
        page.locator(".behind summary").first.click()
        table = page.locator("[aria-label='Cost by day'] table")
        total = table.locator("thead th").all_inner_texts().index("Total")
        rows = table.locator("tbody tr").evaluate_all(
            "(all) => all.map((row) => [...row.cells].map((one) => one.innerText))"
        )
        found = {
            re.sub(r" \(so far\)| ▲ high", "", cells[0]): (int(cells[1].replace(",", "")), _decimal(cells[total]))
            for cells in rows
        }
        with connect.connection(database_url) as conn:
            days = conn.execute(
                """SELECT to_char(recorded_at AT TIME ZONE %(zone)s, 'FMDD Mon'), count(*), sum(cost)
                   FROM taximeter.usages WHERE recorded_at AT TIME ZONE %(zone)s
                        >= date_trunc('day', now() AT TIME ZONE %(zone)s) - interval '29 days' GROUP BY 1""",
                {"zone": zone},
            ).fetchall()
        # A day that has just begun there has no usage yet, which is shown, too.
        assert {day: said for day, said in found.items() if said[0]} == {
            day: (count, cost) for day, count, cost in days
        }
        assert len(found) == 30
        page.goto("about:blank")
    finally:
        own.stop()


def _decimal(text: str) -> Decimal:
    return Decimal(text.replace("$", "").replace(",", ""))
