"""A page that is open when the right to look at it ends."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from taximeter_dashboard.auth.viewers import STAFF, Viewer
from taximeter_dashboard.pages import live
from taximeter_db import access, connect

pytestmark = pytest.mark.browser


def test_signing_out_ends_every_page_that_is_open(new_context, site):
    context = new_context()
    context.faults_expected("401 (Unauthorized)")
    one, other = context.new_page(), context.new_page()
    for page in (one, other):
        page.goto(f"{site.url}/workspaces/acme")
        expect(page.locator("#live")).to_have_attribute("data-state", "live")
    one.get_by_role("button", name="Sign out").click()
    expect(one.locator("main")).to_contain_text("You are signed out.")
    expect(other.locator("main")).to_contain_text("Sign in to see this.")
    assert "$" not in other.locator("body").inner_text()
    assert len(site.app.state.watch._streams.get("acme", ())) == 0


def test_a_right_that_is_taken_away_ends_the_page(new_context, site):
    with connect.connection(site.owner_url) as conn:
        access.allow(conn, "acme", "m-7", "Owner")
    context = new_context(viewer=Viewer("m-7", "Mo", {"acme": STAFF}))
    context.faults_expected("403 (Forbidden)")
    page = context.new_page()
    page.goto(f"{site.url}/workspaces/acme/payments")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    with connect.connection(site.owner_url) as conn:
        access.disallow(conn, "acme", "m-7", "Owner")
    expect(page.locator("main")).to_contain_text("Only the owner and people they allow can see this.")


def test_whoever_has_signed_in_anew_reads_on(new_context, site):
    """The stream goes on with the cookie of now, and the page is not loaded again."""
    context = new_context()
    page = context.new_page()
    page.goto(f"{site.url}/workspaces/acme")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    page.evaluate("window.same = true")
    [old] = [one["value"] for one in context.cookies() if one["name"] == "taximeter_session"]
    context.add_cookies([site.session()])
    session = site.app.state.app_context.keys.read_session(old)
    with page.expect_request("**/events"), connect.connection(site.owner_url) as conn:
        access.use_code(conn, session.number, session.ends_at)
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    assert page.evaluate("window.same")


def test_streams_are_asked_again_within_seconds():
    assert live.AUTHORIZE_SECONDS + live.LOOK_SECONDS + live.SEND_SECONDS < 5
