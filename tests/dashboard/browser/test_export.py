"""The export in a real browser: progress, calling off, and a plain download without JavaScript."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from taximeter_db.queries import copying

pytestmark = pytest.mark.browser


def test_an_export_says_when_it_is_done(page, site):
    page.goto(f"{site.url}/workspaces/acme/usages?tool=image")
    expect(page.locator(".export")).to_contain_text("3 rows as filtered · about")
    with page.expect_download() as begun:
        page.locator("#export").click()
    rows = Path(begun.value.path()).read_text().splitlines()
    assert len(rows) == 4
    expect(page.locator(".export-progress [role=status]")).to_have_text("3 rows exported.")
    expect(page.locator("[data-export-cancel]")).to_be_hidden()
    assert begun.value.suggested_filename == "usages-acme.csv"


def test_an_export_that_is_called_off_is_a_failed_download(page, site, monkeypatch):
    monkeypatch.setattr(copying, "WINDOW_ROWS", 1)
    window = copying.window

    def slow(*args, **more):
        page_waits.wait(0.2)
        return window(*args, **more)

    import threading

    page_waits = threading.Event()  # never set: each window takes its time
    monkeypatch.setattr(copying, "window", slow)
    page.goto(f"{site.url}/workspaces/acme/usages")
    with page.expect_download() as begun:
        page.locator("#export").click()
    progress = page.locator(".export-progress")
    expect(progress).to_contain_text("of 68 rows")
    progress.locator("button").click()
    expect(progress).to_contain_text("Cancelled.")
    expect(progress.locator("button")).to_be_hidden()
    assert begun.value.failure() is not None


def test_without_javascript_it_is_a_plain_download(new_context, site):
    page = new_context(java_script_enabled=False).new_page()
    page.goto(f"{site.url}/workspaces/acme/payments")
    with page.expect_download() as begun:
        page.locator("#export").click()
    assert len(Path(begun.value.path()).read_text().splitlines()) == 3


def test_a_checkbox_marks_a_csv_as_utf_8(page, site):
    page.goto(f"{site.url}/workspaces/acme/usages?tool=image")
    page.get_by_label("marked as UTF-8").check()
    with page.expect_download() as begun:
        page.locator("#export").click()
    assert Path(begun.value.path()).read_bytes().startswith(b"\xef\xbb\xbfseq,")
