"""Statements on the page and in the JSON API: they add up, are nobody else's, and come as CSV and PDF."""

from __future__ import annotations

import datetime as dt
import sys

import pytest
from starlette.testclient import TestClient

from dashboard_factory import bearer, make_settings, make_usage
from factories import make_payment
from past import past
from taximeter_dashboard.app import create_app
from taximeter_dashboard.auth.viewers import OWNER, STAFF, Keys, Viewer
from taximeter_db import access
from taximeter_db.statements import reading

URL = "/workspaces/acme/statements"
API = "/api/v1/workspaces/acme/statements"
MARCH = dt.datetime(2026, 3, 8, 9, tzinfo=dt.UTC)


@pytest.fixture
def browser(database_url, conn):
    """Somebody of acme, of a dashboard with a dashboard's rights alone; of March 2026 there is a month's account."""
    with past(conn, MARCH) as it:
        it.book(
            MARCH,
            make_payment("acme", "25", "p-1", transaction={"provider": "stripe", "reference": "pi_3"}),
            make_payment("acme", "-5", "p-2", kind="clawback", transaction={"payment_id": "p-1"}),
            make_usage(cost="3.000000000001", user_id="<i>u</i>"),
        )
    settings = make_settings(database_url)
    opened: list[TestClient] = []

    def sign_in(role: str = OWNER, workspace: str = "acme") -> TestClient:
        client = TestClient(create_app(settings), base_url="http://dash.example", follow_redirects=False)
        client.cookies.set("taximeter_session", Keys(settings).session(Viewer("u-1", "Ada", {workspace: role})))
        client.headers["sec-fetch-site"] = "same-origin"
        opened.append(client)
        return client

    yield sign_in
    for client in opened:
        client.app.state.app_context.close()


def test_the_months_and_one_of_them_add_up_on_the_page(browser):
    page = browser()
    months = page.get(URL).text
    assert "March 2026" in months
    assert "not over yet" in months
    text = page.get(f"{URL}/2026-03").text
    for part in ("Number 1", "$16.999999999999", "+$20.00", "Clawback", "&lt;i&gt;u&lt;/i&gt;", "file.csv", "file.pdf"):
        assert part in text
    assert "<i>u</i>" not in text


def test_the_api_has_the_same_account(browser, client):
    headers = bearer(workspaces=["acme"])
    found = client.get(f"{API}/2026-03", headers=headers).json()
    assert [found[name] for name in ("opening", "payments", "usage", "closing")] == [
        "0",
        "20",
        "3.000000000001",
        "16.999999999999",
    ]
    assert (found["final"], found["starts_at"], found["usage_by_user"][0]["name"]) == (
        True,
        "2026-03-01T00:00:00Z",
        "<i>u</i>",
    )
    seen, before = [], None
    while True:
        page = client.get(API, headers=headers, params={"limit": 3, **({"before": before} if before else {})}).json()
        seen += page["items"]
        before = page["next"]
        if before is None:
            break
    assert [one["number"] for one in seen] == list(range(len(seen), 0, -1))
    assert [one["final"] for one in seen] == [False, *([True] * (len(seen) - 1))]
    assert seen[-1]["closing"] == seen[0]["opening"] == "16.999999999999"


def test_another_workspaces_statements_are_not_there(browser, client):
    stranger = browser(workspace="other")
    for address in ("", "/2026-03", "/2026-03/file.csv", "/2026-03/file.pdf"):
        assert stranger.get(URL + address).status_code == 404
    assert stranger.get("/workspaces/acme/payments/1/receipt.pdf").status_code == 404
    for address in ("", "/2026-03"):
        assert client.get(API + address, headers=bearer(workspaces=["other"])).status_code == 404


def test_months_that_are_not_there_are_told(browser, client):
    page = browser()
    assert page.get(f"{URL}/2020-01").status_code == 404
    assert page.get("/workspaces/acme/payments/9/receipt.pdf").status_code == 404
    assert page.get(f"{URL}/2026-13").status_code == 422
    assert client.get(f"{API}/2020-01", headers=bearer(workspaces=["acme"])).status_code == 404


def test_files_are_downloads(browser):
    page = browser()
    for address, kind, begins in (
        (f"{URL}/2026-03/file.csv", "text/csv", b"workspace_id,month,"),
        (f"{URL}/2026-03/file.pdf", "application/pdf", b"%PDF-"),
        ("/workspaces/acme/payments/2/receipt.pdf", "application/pdf", b"%PDF-"),
    ):
        answer = page.get(address)
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["content-disposition"].startswith("attachment; filename=")
        assert answer.content.startswith(begins)
    assert "receipt.pdf" in page.get("/workspaces/acme/payments/2").text


def test_without_the_extra_pdf_is_said_not_to_be_installed(browser, monkeypatch):
    page = browser()
    monkeypatch.setitem(sys.modules, "fpdf", None)
    monkeypatch.setattr("taximeter_db.statements.pdf.installed", lambda: False)
    answer = page.get(f"{URL}/2026-03/file.pdf")
    assert answer.status_code == 501
    assert "taximeter[pdf]" in answer.text
    assert "file.pdf" not in page.get(f"{URL}/2026-03").text


def test_an_owner_sets_the_zone_and_nobody_else_does(browser, conn):
    page = browser()
    assert page.post(f"{URL}/zone", data={"zone": "Europe/Riga"}).headers["location"].endswith("statements?saved=1")
    assert reading.zone(conn, "acme") == "Europe/Riga"
    assert "Time zone of statements" in page.get("/workspaces/acme/settings").text
    for wrong in ("Mars", "a\0b", "", "<b>"):
        answer = page.post(f"{URL}/zone", data={"zone": wrong})
        assert answer.status_code == 422
        assert "not a time zone" in answer.text
    access.allow(conn, "acme", "u-1", "the owner")
    staff = browser(STAFF)
    assert staff.post(f"{URL}/zone", data={"zone": "UTC"}).status_code == 403
    assert "Save" not in staff.get(URL).text
    assert reading.zone(conn, "acme") == "Europe/Riga"


def test_a_log_that_does_not_add_up_is_told_and_not_shown(browser, conn):
    conn.execute("ALTER TABLE taximeter.payments DISABLE TRIGGER ALL")
    conn.execute("UPDATE taximeter.payments SET amount = 26 WHERE payment_id = 'p-1'")
    answer = browser().get(f"{URL}/2026-03")
    assert answer.status_code == 500
    assert "does not add up" in answer.text


def test_a_new_workspace_has_an_empty_tab(browser):
    assert "No statements yet" in browser(workspace="new").get("/workspaces/new/statements").text
