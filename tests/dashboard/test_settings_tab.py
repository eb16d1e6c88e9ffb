"""What an owner may change, and what is refused."""

from __future__ import annotations

import datetime as dt
import re

import pytest
import time_machine
from starlette.testclient import TestClient

from dashboard_factory import bearer, make_settings, make_usage
from taximeter_dashboard.app import create_app
from taximeter_dashboard.auth.viewers import OPERATOR, OWNER, STAFF, Keys, Viewer
from taximeter_dashboard.formatting import amounts
from taximeter_db import access
from taximeter_db.queries import summary

URL = "/workspaces/acme/settings"


@pytest.fixture
def browser(database_url, book):
    book(make_usage(cost="0.05"))
    settings = make_settings(database_url, dashboard_minimum_from="-5")

    def sign_in(role: str = OWNER) -> TestClient:
        client = TestClient(create_app(settings), base_url="http://dash.example", follow_redirects=False)
        client.cookies.set("taximeter_session", Keys(settings).session(Viewer("u-1", "Ada", {"acme": role})))
        client.headers["sec-fetch-site"] = "same-origin"
        opened.append(client)
        return client

    opened: list[TestClient] = []
    yield sign_in
    for client in opened:
        client.app.state.app_context.close()


def test_limits_change_are_logged_and_reach_the_flag(browser, conn):
    assert browser().post(URL, data={"low": "1.50", "minimum": "-1"}).status_code == 303
    found = summary.read(conn, "acme")
    assert (found.minimum, found.low) == (-(10**12), 15 * 10**11)
    log = [(one.changed_by, one.field, one.value_before, one.value_after) for one in access.changes(conn, "acme")]
    assert log == [("Ada (u-1)", "low", "0", "1.5"), ("Ada (u-1)", "minimum", "-0.12", "-1")]
    assert conn.execute("SELECT workspace_id FROM taximeter.stale_flags").fetchall() == [("acme",)]
    page = browser().get(f"{URL}?saved=1").text
    assert "Saved." in page
    assert "$0.00 → $1.50" in page
    assert 'name="low" inputmode="decimal" autocomplete="off" required maxlength="40" value="1.50"' in page
    assert 'value="-1.00"' not in page  # a minus as everywhere
    assert f'value="{amounts.MINUS}1.00"' in page


@pytest.mark.parametrize(
    "data",
    [
        {"low": "NaN", "minimum": "-0.12"},
        {"low": "0", "minimum": "NaN"},
        {"low": "Infinity"},
        {"low": "1e3"},
        {"low": "0.0000000000001"},
        {"low": "-1", "minimum": "-0.5"},
        {"low": "0", "minimum": "0.01"},
        {"low": "0", "minimum": "-5.01"},
        {"low": "<b>"},
    ],
)
def test_limits_that_make_no_sense_are_422_and_change_nothing(browser, conn, data):
    answer = browser().post(URL, data=data)
    assert answer.status_code == 422
    assert "<b>" not in answer.text
    assert access.changes(conn, "acme") == []


def test_the_minimum_is_the_platforms_unless_it_says_otherwise(owner, conn, book):
    book(make_usage())
    assert owner.post(URL, data={"low": "0", "minimum": "-1"}).status_code == 422
    assert owner.post(URL, data={"low": "2"}).status_code == 303
    assert "set by the platform" in owner.get(URL).text


def test_previews_say_what_would_happen(browser):
    def preview(**query: str) -> str:
        return browser().get(f"{URL}/preview", params=query).text

    assert preview(low="0", minimum="-0.01").startswith("With a minimum of")
    assert "switched off now" in preview(low="0", minimum="-0.01")
    assert "stays as it is" in preview(low="0", minimum="-2")
    assert "would be sufficient" in preview(low="-0.1", minimum="-2")
    assert preview(low="1,000.50").startswith("“1,000.50” is not an amount. Write one such as 1000.00 or")
    assert preview(low=" ").startswith("Write one such as")


def test_staff_and_operators_change_nothing(browser, conn):
    for role in (STAFF, OPERATOR):
        client = browser(role)
        assert client.get(URL).status_code == 403
        assert client.post(URL, data={"low": "1"}).status_code == 403
        assert client.post(f"{URL}/readers", data={"member": "u-1"}).status_code == 403
    assert access.changes(conn, "acme") == []


def test_readers_come_and_go(browser, conn):
    owner = browser()
    assert owner.post(f"{URL}/readers", data={"member": " u-9 "}).status_code == 303
    assert access.readers(conn, "acme") == ["u-9"]
    assert re.search(r"<td>Ada \(u-1\)</td><td>u-9 may look</td>", owner.get(URL).text)
    assert owner.post(f"{URL}/readers", data={"member": "  "}).status_code == 422
    assert owner.post(f"{URL}/readers", data={"remove": "u-9"}).status_code == 303
    assert access.readers(conn, "acme") == []


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "", "origin": "https://evil.example"},
        {"origin": "null", "sec-fetch-site": ""},
    ],
)
def test_another_sites_writes_are_403(browser, conn, headers):
    owner = browser()
    del owner.headers["sec-fetch-site"]
    given = {name: value for name, value in headers.items() if value}
    assert owner.post(URL, data={"low": "1"}, headers=given).status_code == 403
    assert owner.post(URL, data={"low": "1"}).status_code == 403  # a cookie, and no word of where it comes from
    assert access.changes(conn, "acme") == []
    assert owner.post(URL, data={"low": "1"}, headers={"origin": "http://dash.example"}).status_code == 303


def test_a_link_signs_in_once(client, settings, book):
    book(make_usage())
    made = client.post("/api/v1/sign-in-links", headers=bearer())
    assert made.status_code == 200
    path = made.json()["path"]
    answer = client.get(path)
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert client.get("/").headers["location"] == "/workspaces/acme"
    assert client.get("/workspaces/acme").status_code == 200
    client.cookies.clear()
    assert client.get(path).status_code == 401
    assert client.get("/workspaces/acme").status_code == 401
    assert client.post("/api/v1/sign-in-links").status_code == 403


@pytest.mark.parametrize(("minutes", "status"), [(4, 303), (6, 401)])
def test_a_link_is_followed_at_once_or_not_at_all(client, minutes: int, status: int):
    path = client.post("/api/v1/sign-in-links", headers=bearer()).json()["path"]
    with time_machine.travel(dt.timedelta(minutes=minutes), tick=False):
        assert client.get(path).status_code == status


def test_the_page_can_stand_under_a_prefix(settings, book):
    from starlette.applications import Starlette
    from starlette.routing import Mount

    book(*(make_usage() for _ in range(21)))
    page = create_app(settings)
    host = TestClient(Starlette(routes=[Mount("/ai", page)]), base_url="http://dash.example", follow_redirects=False)
    path = host.post("/ai/api/v1/sign-in-links", headers=bearer()).json()["path"]
    assert path.startswith("/ai/sign-in/")
    assert host.get(path).headers["location"] == "/ai/"
    text = host.get("/ai/workspaces/acme").text
    assert 'href="/ai/workspaces/acme/usages?page=2&amp;upto=21"' in text
    assert 'href="/workspaces' not in text
    assert host.get("/ai/workspaces/none").status_code == 404
    page.state.app_context.close()
