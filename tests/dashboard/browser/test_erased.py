"""What is left to see once a workspace's contents were erased."""

from __future__ import annotations

import datetime as dt
import itertools
import subprocess

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from dashboard_factory import make_payment, make_usage
from instances import COMMAND
from taximeter_dashboard.formatting import times
from taximeter_db import connect
from taximeter_db.crypto import master_keys
from taximeter_db.crypto.payload_crypto import PayloadCrypto
from taximeter_db.ledger import booking
from taximeter_db.ledger.context import BookingContext

pytestmark = pytest.mark.browser


def test_erased_contents_say_so_and_the_receipt_stays(new_context, site, sql, tmp_path, environment):
    masters = master_keys.parse(master_keys.new())
    [(revision,)] = sql("SELECT max(revision) FROM taximeter.price_revisions")
    few = {"quantities": {"input_tokens": 1, "output_tokens": 3}, "price_version": revision}
    with connect.booking_connection(site.owner_url) as conn:
        usages = [make_usage("erased", f"kept-{n}", cost="0.0000325", **few) for n in range(3)]
        booking.book(
            conn, usages, [make_payment("erased", "1")], context=BookingContext(payload_crypto=PayloadCrypto(masters))
        )
    own = site.beside(site.owner_url, masters)
    try:
        page = new_context(at=own, timezone_id="UTC").new_page()
        page.goto(f"{own.url}/workspaces/erased")
        expect(page.locator("td.excerpt").first).to_contain_text("What is a lighthouse?")
        balance = page.locator("#balance").get_attribute("value")

        command = [*COMMAND, "workspace", "erase-payloads", "erased", "--yes", "--data-dir", str(tmp_path)]
        environ = {**environment, "TAXIMETER_DATABASE_URL": site.owner_url}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert (done.returncode, "Destroyed 1 data key" in done.stdout) == (0, True), done.stderr

        [(erased_at,)] = sql("SELECT min(erased_at) FROM taximeter.payload_erasures WHERE workspace_id = 'erased'")
        day = times.date(erased_at, dt.UTC, dt.datetime.now(dt.UTC))
        words = f"Contents erased {day}; the cost record stays."
        page.reload()
        expect(page.locator("td.excerpt")).to_have_text([words] * 3)
        assert _violations(page) == {}
        assert page.locator("tbody td.number data").first.get_attribute("value") == "0.0000325"
        assert page.locator("#balance").get_attribute("value") == balance
        page.locator("tbody a").first.click()
        expect(page.locator("#details #gone")).to_have_text(words)
        expect(page.locator("#details .receipt")).to_contain_text("$2.50 per 1M ($0.0000025 each)")
        expect(page.locator("#details .receipt .total .amount")).to_have_text("$0.0000325")
        assert _violations(page) == {}
        page.goto(page.url)
        expect(page.locator("#panel #gone")).to_have_text(words)
        assert "lighthouse" not in page.content()
        assert _violations(page) == {}
        page.goto("about:blank")
    finally:
        own.stop()


def _violations(page) -> dict[tuple[int, str, str], list[str]]:
    axe, found = Axe(), {}
    for width, scheme in itertools.product((1280, 320), ("light", "dark")):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        for one in axe.run(page).response["violations"]:
            found[width, scheme, one["id"]] = [node["html"][:120] for node in one["nodes"]][:3]
    page.set_viewport_size({"width": 1280, "height": 900})
    return found
