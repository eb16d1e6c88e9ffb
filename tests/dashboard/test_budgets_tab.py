"""Budgets on the page and in the JSON API: who sees them, who may set them, and what is refused."""

from __future__ import annotations

import datetime as dt

import pytest
from starlette.testclient import TestClient

from dashboard_factory import bearer, make_settings, make_usage
from taximeter_dashboard.app import create_app
from taximeter_dashboard.auth.viewers import OWNER, STAFF, Keys, Viewer
from taximeter_db import access
from taximeter_db.budgets import reading, setting
from taximeter_db.budgets.terms import Terms
from taximeter_db.ledger.booking import read_states

URL = "/workspaces/acme/budgets"
API = "/api/v1/workspaces/acme"
USD = 10**12


@pytest.fixture
def browser(database_url, book):
    book(make_usage(cost="3", user_id="u-17"))
    settings = make_settings(database_url)
    opened: list[TestClient] = []

    def sign_in(role: str = OWNER) -> TestClient:
        client = TestClient(create_app(settings), base_url="http://dash.example", follow_redirects=False)
        client.cookies.set("taximeter_session", Keys(settings).session(Viewer("u-1", "Ada", {"acme": role})))
        client.headers["sec-fetch-site"] = "same-origin"
        opened.append(client)
        return client

    yield sign_in
    for client in opened:
        client.app.state.app_context.close()


def test_an_owner_sets_watches_and_removes_a_budget(browser, conn):
    page = browser()
    assert "No budget is set" in page.get(URL).text
    data = {"name": "Team", "limit": "2.50", "period": "day", "zone": "Europe/Riga", "kind": "user", "value": "u-17"}
    assert page.post(URL, data=data).headers["location"].endswith("/budgets?saved=1")
    found = reading.find(conn, "acme", "Team")
    assert (found.terms.limit, found.terms.user, found.terms.zone, found.spent) == (
        25 * USD // 10,
        "u-17",
        "Europe/Riga",
        3 * USD,
    )
    text = page.get(f"{URL}?saved=1").text
    for part in (
        "Saved.",
        "Team",
        "user u-17",
        "$2.50",
        "$3.00",
        "120 %",
        "used up, these calls refused",
        "its settings",
    ):
        assert part in text, part
    assert "Team" in read_states(conn, ["acme"])[0].budgets
    assert conn.execute("SELECT workspace_id FROM taximeter.stale_flags").fetchall() == [("acme",)]
    assert access.changes(conn, "acme")[0].changed_by == "Ada (u-1)"
    assert "Budget Team set: 2.5 USD hard, day, Europe/Riga, user u-17" in page.get("/workspaces/acme/settings").text
    assert page.post(f"{URL}/remove", data={"name": "Team"}).status_code == 303
    assert reading.find(conn, "acme", "Team") is None
    assert page.post(f"{URL}/remove", data={"name": "Team"}).status_code == 422
    assert "Budget Team removed" in page.get("/workspaces/acme/settings").text


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"limit": "NaN"}, "not an amount"),
        ({"limit": "-1"}, "below 0"),
        ({"period": "year"}, "not a period"),
        ({"period": "hours", "hours": "x"}, "not a period"),
        ({"zone": "Mars"}, "not a time zone"),
        ({"kind": "tag", "value": "team"}, "not a tag"),
        ({"kind": "user", "value": ""}, "The user of a budget"),
        ({"kind": "", "value": "u-17"}, "Say what the budget is for"),
        ({"name": ""}, "The name of a budget"),
    ],
)
def test_what_makes_no_sense_is_422_and_sets_nothing(browser, conn, data, says):
    answer = browser().post(URL, data={"name": "b", "limit": "1", "period": "day", "zone": "UTC"} | data)
    assert answer.status_code == 422
    assert says in answer.text
    assert reading.list_budgets(conn, "acme") == []


def test_staff_sees_budgets_and_sets_none(browser, conn):
    setting.set_budget(conn, Terms("acme", "b", 1, "total"))
    access.allow(conn, "acme", "u-1", "the tests")
    page = browser(STAFF)
    text = page.get(URL).text
    assert "used up" in text
    assert '<form method="post" action="/workspaces/acme/budgets' not in text
    assert page.post(URL, data={"name": "b", "limit": "1", "period": "day"}).status_code == 403
    assert page.post(f"{URL}/remove", data={"name": "b"}).status_code == 403


def test_the_api_lists_budgets_page_by_page(browser, conn):
    for name in ("a", "b", "c"):
        setting.set_budget(conn, Terms("acme", name, 10 * USD, "hours", 24, tag=("team", "x"), hard=False))
    client = browser()
    first = client.get(f"{API}/budgets?limit=2", headers=bearer()).json()
    assert ([item["name"] for item in first["items"]], first["next"]) == (["a", "b"], "b")
    last = client.get(f"{API}/budgets?limit=2&after=b", headers=bearer()).json()
    assert last["next"] is None
    (budget,) = last["items"]
    assert budget["period_began_at"].endswith("Z")
    del budget["period_began_at"]
    assert budget == {
        "name": "c",
        "limit": "10",
        "period": "hours:24",
        "zone": "UTC",
        "user": None,
        "tool": None,
        "model": None,
        "tag": "team=x",
        "soft": True,
        "thresholds": [50, 80, 100],
        "spent": "0",
        "usages": 0,
        "percent": 0,
        "state": "within",
        "period_ends_at": None,
    }


def test_the_api_heeds_hard_budgets_that_concern_the_call(browser, conn):
    setting.set_budget(conn, Terms("acme", "b", 0, "total", user="u", tag=("team", "x")))
    client = browser()

    def ask(query: str) -> tuple[bool, str | None]:
        answer = client.get(f"{API}/enabled{query}", headers=bearer()).json()
        return answer["enabled"], answer.get("budget")

    conn.execute("UPDATE taximeter.workspaces SET minimum_balance = -100")
    assert ask("") == ask("?user=u") == ask("?user=v&tag=team=x") == (True, None)
    assert ask("?user=u&tag=env=y&tag=team=x") == (False, "b")


def test_the_timeline_tells_when_budgets_refused_calls(browser, book, conn):
    """Those that ended, and those that last; soft ones refuse nothing, and what was made soft ended then."""
    page = browser()
    assert "When budgets refused calls" not in page.get("/workspaces/acme/analysis").text
    for name, hard in (("ended", True), ("lasts", True), ("soft", False), ("softened", True)):
        setting.set_budget(conn, Terms("acme", name, 5 * USD, "total", hard=hard))
    book(make_usage(event_id="too-much", cost="4"))
    setting.set_budget(conn, Terms("acme", "ended", 50 * USD, "total"), by="Ada")
    setting.set_budget(conn, Terms("acme", "softened", 5 * USD, "total", hard=False), by="Ada")
    since = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    found = reading.refusals(conn, "acme", since)
    assert sorted((one.name, one.ended_at is None, one.cause, one.cause_id) for one in found) == [
        ("ended", False, "usage", "too-much"),
        ("lasts", True, "usage", "too-much"),
        ("softened", False, "usage", "too-much"),
    ]
    assert all(one.ended_at is None or one.begun_at < one.ended_at for one in found)
    text = page.get("/workspaces/acme/analysis").text
    timeline = text[text.index("When budgets refused calls") :]
    for part in ("ended", "lasts", "softened", "<td>now</td>", "$7.00 of $5.00", "too-much", "a usage"):
        assert part in timeline, part
    assert "<td>soft</td>" not in timeline
    late = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    assert [one.name for one in reading.refusals(conn, "acme", late)] == ["lasts"]
