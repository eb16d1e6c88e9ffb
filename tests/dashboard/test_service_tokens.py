"""Programs by service tokens: what they open, where, until when, and who makes and revokes them."""

from __future__ import annotations

import re
from collections.abc import Callable

import psycopg
import pytest
from starlette.testclient import TestClient

from dashboard_factory import make_payment, make_usage
from taximeter_dashboard.app import create_app
from taximeter_dashboard.auth.viewers import OPERATOR, OWNER, READER, STAFF, Keys, Viewer
from taximeter_db import access, connect, service_tokens
from taximeter_db.errors import NotFoundError, SettingsError

URL = "/workspaces/acme/settings/tokens"
API = (
    "summary",
    "enabled",
    "usages",
    "usages/mine",
    "payments",
    "status-changes",
    "analysis",
    "budgets",
    "export?log=usages",
)


@pytest.fixture
def make(conn) -> Callable[..., dict[str, str]]:
    """Headers with a new token."""

    def make(name: str = "robot", *workspaces: str, read_only: bool = False) -> dict[str, str]:
        token = service_tokens.make(conn, name, workspaces=workspaces, read_only=read_only, by="the tests")
        return {"authorization": f"Bearer {token}"}

    return make


@pytest.fixture
def two_workspaces(book) -> None:
    book(make_usage(event_id="mine"), make_payment(), make_usage("other"), make_payment("other"))


@pytest.fixture
def browser(settings, client) -> Callable[..., TestClient]:
    def sign_in(role: str = OWNER, workspace: str = "acme") -> TestClient:
        client.cookies.set("taximeter_session", Keys(settings).session(Viewer("u-1", "Ada", {workspace: role})))
        client.headers["sec-fetch-site"] = "same-origin"
        return client

    return sign_in


@pytest.mark.usefixtures("two_workspaces")
@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("name", API)
def test_a_token_opens_the_api_of_its_workspace_and_of_no_other(client, make, name, read_only):
    mine = make("robot", "acme", read_only=read_only)
    answer = client.get(f"/api/v1/workspaces/acme/{name}", headers=mine)
    assert answer.status_code == 200, answer.text
    theirs = client.get(f"/api/v1/workspaces/other/{name}", headers=mine)
    absent = client.get(f"/api/v1/workspaces/nobody/{name}", headers=mine)
    assert (theirs.status_code, theirs.json()) == (404, absent.json())


@pytest.mark.usefixtures("two_workspaces")
def test_one_that_names_no_workspace_opens_every_one(client, make):
    everywhere = make()
    for workspace in ("acme", "other"):
        assert client.get(f"/api/v1/workspaces/{workspace}/summary", headers=everywhere).status_code == 200
    assert client.get("/api/v1/workspaces/nobody/summary", headers=everywhere).status_code == 404
    listed = client.get("/api/v1/workspaces", headers=everywhere).json()["items"]
    assert [item["workspace_id"] for item in listed] == ["acme", "other"]
    one = client.get("/api/v1/workspaces", headers=make("only", "other")).json()["items"]
    assert [item["workspace_id"] for item in one] == ["other"]


@pytest.mark.usefixtures("two_workspaces")
def test_a_revoked_token_opens_nothing_from_then_on(client, conn, make):
    both = make("robot", "acme", "other")
    addresses = [f"/api/v1/workspaces/{workspace}/summary" for workspace in ("acme", "other")]
    assert [client.get(address, headers=both).status_code for address in addresses] == [200, 200]
    assert service_tokens.take_away(conn, "acme", "robot", by="its owner")
    assert [client.get(address, headers=both).status_code for address in addresses] == [404, 200]
    assert service_tokens.revoke(conn, "robot", by="the operator") == 1
    assert [client.get(address, headers=both).status_code for address in addresses] == [401, 401]


@pytest.mark.usefixtures("two_workspaces")
@pytest.mark.parametrize("path", ["/", "/workspaces/acme", "/workspaces/acme/settings", "/workspaces/acme/events"])
def test_no_token_opens_a_page(client, make, path):
    answer = client.get(path, headers=make("robot", "acme"))
    assert answer.status_code == 401


@pytest.mark.usefixtures("two_workspaces")
def test_no_token_makes_tokens_or_signs_anybody_in(client, conn, make):
    headers = make("robot", "acme")
    assert client.post(URL, data={"name": "more"}, headers=headers).status_code == 401
    assert client.post("/api/v1/sign-in-links", headers=headers).status_code == 401
    assert [token.name for token in service_tokens.all_tokens(conn)] == ["robot"]


@pytest.mark.parametrize(
    "token", ["txs_", "txs_x", "txs_" + "A" * 43, "txs_' OR true --", "txs_\xff", "txs_" + "x" * 9_000]
)
def test_what_only_looks_like_a_token_opens_nothing(client, make, token):
    make()
    answer = client.get(
        "/api/v1/workspaces/acme/summary", headers={"authorization": f"Bearer {token}".encode("latin-1")}
    )
    assert answer.status_code == 401
    assert token not in answer.text


def test_only_a_hash_is_stored(conn, make):
    token = make("robot", "acme")["authorization"].removeprefix("Bearer ")
    assert re.fullmatch(r"txs_[A-Za-z0-9_-]{43}", token)
    rows = conn.execute("SELECT t::text FROM taximeter.service_tokens AS t").fetchall()
    rows += conn.execute("SELECT c::text FROM taximeter.workspace_changes AS c").fetchall()
    assert token not in str(rows)
    assert service_tokens.find(conn, token).workspaces == ("acme",)


@pytest.mark.usefixtures("two_workspaces")
def test_the_owner_makes_one_sees_it_once_and_revokes_it(browser, client, conn):
    answer = browser().post(URL, data={"name": "robot", "read": "1"})
    assert answer.status_code == 200
    token = re.search(r"txs_[A-Za-z0-9_-]{43}", answer.text)[0]
    assert answer.headers["cache-control"] == "no-store"
    page = browser().get("/workspaces/acme/settings").text
    assert token not in page
    assert "may read, made" in page
    assert "Token robot made" in page
    anonymous = {"authorization": f"Bearer {token}"}
    client.cookies.clear()
    assert client.get("/api/v1/workspaces/acme/summary", headers=anonymous).status_code == 200
    assert client.get("/api/v1/workspaces/other/summary", headers=anonymous).status_code == 404
    assert browser().post(URL, data={"revoke": "robot"}).status_code == 303
    client.cookies.clear()
    assert client.get("/api/v1/workspaces/acme/summary", headers=anonymous).status_code == 401
    log = [(one.changed_by, one.field, one.value_before, one.value_after) for one in access.changes(conn, "acme")]
    assert log == [("Ada (u-1)", "token", "robot", None), ("Ada (u-1)", "token", None, "robot")]
    assert "Token robot revoked" in browser().get("/workspaces/acme/settings").text


@pytest.mark.usefixtures("two_workspaces")
def test_nobody_but_the_owner_makes_sees_or_revokes_them(browser, conn, make):
    make("theirs", "other")
    make("ours", "acme")
    for role in (READER, STAFF, OPERATOR):
        assert browser(role).post(URL, data={"name": "more"}).status_code == 403
        assert browser(role).post(URL, data={"revoke": "ours"}).status_code == 403
    assert "theirs" not in browser().get("/workspaces/acme/settings").text
    assert browser().post(URL, data={"revoke": "theirs"}).status_code == 303
    assert browser().post("/workspaces/other/settings/tokens", data={"revoke": "theirs"}).status_code == 404
    assert [token.name for token in service_tokens.all_tokens(conn)] == ["ours", "theirs"]


@pytest.mark.usefixtures("two_workspaces")
@pytest.mark.parametrize("name", ["", "  ", "no spaces", "<b>", "x" * 65, "é", "robot"])
def test_a_name_that_cannot_be_one_is_refused(browser, conn, make, name):
    make("robot", "acme")
    answer = browser().post(URL, data={"name": name})
    assert answer.status_code == 422
    assert "<b>" not in answer.text
    assert [token.name for token in service_tokens.all_tokens(conn)] == ["robot"]


def test_names_are_a_workspaces_own_and_an_ambiguous_one_is_not_revoked(conn, make):
    make("robot", "acme")
    make("robot", "other")
    with pytest.raises(SettingsError, match="already"):
        make("robot", "third", "acme")
    assert [token.workspaces for token in service_tokens.all_tokens(conn) if "third" in token.workspaces] == []
    with pytest.raises(SettingsError, match="of which workspace"):
        service_tokens.revoke(conn, "robot", by="me")
    assert service_tokens.revoke(conn, "robot", by="me", workspace_id="acme") == 1
    assert service_tokens.revoke(conn, "robot", by="me") == 1
    with pytest.raises(NotFoundError):
        service_tokens.revoke(conn, "robot", by="me")


def test_there_are_not_endlessly_many(conn, make, monkeypatch):
    monkeypatch.setattr(service_tokens, "TOKENS_MAX", 2)
    make("a", "acme")
    make("b", "acme")
    with pytest.raises(SettingsError, match="2 tokens already"):
        make("c", "acme")
    make("c", "other")


def test_the_pages_login_sees_the_tokens_of_the_workspace_that_it_named_alone(conn, make, role_url):
    headers = make("ours", "acme")
    make("theirs", "other")
    make()
    with connect.connect(role_url("dashboard")) as page:
        with page.transaction():
            assert service_tokens.of_workspace(page, "other") == []
            assert service_tokens.find(page, headers["authorization"].removeprefix("Bearer ")).name == "ours"
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            page.execute("UPDATE taximeter.service_tokens SET read_only = false")


def test_a_mounted_page_takes_them_below_its_prefix(settings, book, make):
    from starlette.applications import Starlette
    from starlette.routing import Mount

    book(make_usage())
    page = create_app(settings)
    client = TestClient(Starlette(routes=[Mount("/billing", page)]), follow_redirects=False)
    headers = make("robot", "acme")
    assert client.get("/billing/api/v1/workspaces/acme/summary", headers=headers).status_code == 200
    assert client.get("/billing/workspaces/acme", headers=headers).status_code == 401
    page.state.app_context.close()
