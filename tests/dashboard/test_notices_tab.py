"""What an owner does about notices on the page, and what nobody else may."""

from __future__ import annotations

import re

import pytest
from standardwebhooks.webhooks import Webhook
from starlette.testclient import TestClient

from dashboard_factory import make_settings, make_usage
from taximeter_dashboard.app import create_app
from taximeter_dashboard.auth.viewers import OPERATOR, OWNER, STAFF, Keys, Viewer
from taximeter_db import access
from taximeter_db.notices import deliveries, targets

URL = "/workspaces/acme/notices"


@pytest.fixture
def browser(database_url, book):
    book(make_usage(cost="0.05"))
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


def test_a_webhook_is_added_and_its_secret_shown_once(browser, conn, book):
    data = {"address": "https://hooks.example.com/secret-path", "type": ["workspace.low", "workspace.insufficient"]}
    page = browser().post(f"{URL}/targets", data=data)
    secret = re.search(r"whsec_[A-Za-z0-9+/=]+", page.text)
    assert secret is not None
    assert Webhook(secret[0])
    again = browser().get(URL).text
    assert "https://hooks.example.com" in again
    assert "secret-path" not in page.text + again
    assert "whsec_" not in again
    assert "Balance low" in again
    (target,) = targets.listed(conn, "acme")
    assert (target.types, target.allow_private) == (("workspace.insufficient", "workspace.low"), False)
    (change,) = access.changes(conn, "acme")
    assert (change.changed_by, change.field) == ("Ada (u-1)", "notices")
    assert f"Notices to {change.value_after}" in browser().get("/workspaces/acme/settings").text
    book(make_usage(cost="1"))
    assert "AI off" in browser().get(URL).text
    assert "On its way" in browser().get(URL).text


@pytest.mark.parametrize(
    "address",
    [
        "http://hooks.example.com/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "jsons://hooks.example.com/",
        "syslog://",
        "",
        "<b>",
    ],
)
def test_an_address_that_may_not_be_is_refused(browser, conn, address):
    answer = browser().post(f"{URL}/targets", data={"address": address})
    assert answer.status_code == 422
    assert "<b>" not in answer.text
    assert targets.listed(conn, "acme") == []


def test_a_target_is_tried_out_rotated_replayed_and_removed(browser, conn):
    owner = browser()
    owner.post(f"{URL}/targets", data={"address": "https://hooks.example.com/"})
    owner.post(f"{URL}/targets", data={"address": "slack://TokenA/TokenB/TokenC/#general"})
    hook, chat = targets.listed(conn, "acme")
    assert "TokenA" not in owner.get(URL).text

    def act(target_id: int, what: str):
        return owner.post(f"{URL}/targets/change", data={"target": str(target_id), "act": what})

    assert act(hook.target_id, "test").status_code == 303
    (test,) = deliveries.sent(conn, "acme")
    assert (test.type, test.target_id, test.state) == ("notice.test", hook.target_id, "pending")
    conn.execute("UPDATE taximeter.notice_deliveries SET state = 'dead', ended_at = now()")
    assert "Given up" in owner.get(URL).text
    assert act(hook.target_id, "replay").status_code == 303
    assert deliveries.sent(conn, "acme")[0].state == "pending"
    assert "whsec_" in act(hook.target_id, "rotate").text
    assert act(chat.target_id, "rotate").status_code == 422
    assert act(chat.target_id, "remove").status_code == 303
    assert [target.target_id for target in targets.listed(conn, "acme")] == [hook.target_id]
    assert act(chat.target_id, "remove").status_code == 422


def test_what_is_anothers_is_not_there(browser, conn):
    new = targets.NewTarget(channel="webhook", address="https://hooks.example.com/", workspace_id="other")
    others = targets.add(conn, new, None, "olga").target_id
    everybody = targets.add(
        conn, targets.NewTarget(channel="webhook", address="https://a.example/", workspace_id="*"), None, "op"
    )
    owner = browser()
    assert "hooks.example.com" not in owner.get(URL).text
    for target_id in (others, everybody.target_id):
        for what in ("remove", "test", "replay", "rotate"):
            answer = owner.post(f"{URL}/targets/change", data={"target": str(target_id), "act": what})
            assert answer.status_code == 422
            assert "no such target" in answer.text
    assert len(targets.listed(conn)) == 2
    assert browser(workspace="other").get(URL).status_code == 404


@pytest.mark.parametrize("role", [STAFF, OPERATOR])
def test_only_the_owner_may(browser, conn, role):
    access.allow(conn, "acme", "u-1", "owner")
    client = browser(role)
    assert client.get(URL).status_code == 403
    assert client.post(f"{URL}/targets", data={"address": "https://hooks.example.com/"}).status_code == 403
    assert ">Notices<" not in client.get("/workspaces/acme/usages").text


def test_pages_of_what_was_sent_leave_none_out(browser, conn, book):
    for number in range(3):
        address = f"https://hooks.example.com/{number}"
        targets.add(conn, targets.NewTarget(channel="webhook", address=address, workspace_id="acme"), None, "olga")
    row = targets.listed(conn, "acme")[0]
    for _ in range(40):
        deliveries.send_test(conn, row, "olga")
    book(*[make_usage(cost="1")])
    shown, path = 0, URL
    while path:
        text = browser().get(path).text
        shown += text.count("On its way")
        following = re.search(r'href="([^"]+\?before=\d+)"', text)
        path = following[1] if following else ""
    assert shown == conn.execute("SELECT count(*) FROM taximeter.notice_deliveries").fetchone()[0] == 43
