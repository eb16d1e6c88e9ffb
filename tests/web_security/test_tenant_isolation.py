"""Another workspace's rows, by every address there is: refused, exactly as if they did not exist, and never shown."""

from __future__ import annotations

import re
import secrets

import pytest

from dashboard_factory import bearer, make_settings
from taximeter_dashboard.app import create_app
from taximeter_dashboard.auth.viewers import OPERATOR, OWNER, STAFF
from taximeter_db import access, service_tokens
from web_security.attack_surface import HOST, OURS, SECRET, THEIRS, Route, routes

ROUTES = routes(create_app(make_settings("postgresql://nobody@127.0.0.1:9/none")))
OF_A_WORKSPACE = [route for route in ROUTES if route.of_a_workspace]

FOR_ANYBODY = {
    "GET /openapi.json": 200,
    "GET /static/{name}": 200,
    "GET /zone": 200,
    "GET /signed-out": 200,
    "GET /sign-in": 404,  # where no provider is set up
    "GET /signed-in": 404,
    "GET /sign-in/{code}": 401,
    "POST /sign-out": 303,
    "GET /": 401,
    "GET /api/v1/workspaces": 401,
    "GET /health": 200,
    "POST /api/v1/sign-in-links": 401,
}
"""What belongs to no workspace, and what somebody gets there who is not signed in. A new route must be entered here, or
carry `{workspace_id}`, and then all attacks below are made on it."""


def test_every_route_has_its_attacks():
    others = {str(route) for route in ROUTES if not route.of_a_workspace}
    assert others == set(FOR_ANYBODY)
    assert len(OF_A_WORKSPACE) >= 16


@pytest.mark.parametrize("name", FOR_ANYBODY)
def test_what_a_stranger_gets(client, name: str):
    [route] = [route for route in ROUTES if str(route) == name]
    answer = client.request(route.method, route.at(), headers={"sec-fetch-site": "same-origin"})
    assert answer.status_code == FOR_ANYBODY[name]
    assert SECRET not in answer.text


@pytest.mark.parametrize("route", OF_A_WORKSPACE, ids=str)
def test_no_stranger_no_neighbour_no_staff_gets_in(client, browser, conn, route: Route):
    """By session and by token: 401 to nobody, 404 to the neighbour as to whoever asks for nothing, 403 to the staff."""

    def ask(who, workspace: str, **more):
        return who.request(route.method, route.at(workspace, seq="1", event=f"{SECRET}-1"), data=_form(route), **more)

    def neutral(answer) -> tuple[int, str, list[str]]:
        text = re.sub(rf"\b({THEIRS}|never)\b|[0-9a-f]{{8,}}", "*", answer.text)
        return answer.status_code, text, sorted(name for name in answer.headers if name != "content-length")

    token = service_tokens.make(conn, secrets.token_hex(8), workspaces=[OURS], read_only=False, by="the tests")
    program = {"authorization": f"Bearer {token}"}
    before = _everything(conn)
    assert ask(client, THEIRS, headers={"sec-fetch-site": "same-origin"}).status_code == 401
    for who, more in (
        (browser({OURS: OWNER}), {}),
        (client, {"headers": bearer(workspaces=[OURS])}),
        (client, {"headers": program}),
    ):
        theirs, absent = ask(who, THEIRS, **more), ask(who, "never", **more)
        # A program's token opens no page, not even its own workspace's.
        opens = more.get("headers") is not program or route.path.startswith("/api/")
        assert theirs.status_code == (404 if opens else 401)
        assert neutral(theirs) == neutral(absent)
        assert SECRET not in theirs.text
        assert "711.25" not in theirs.text  # what they paid, however its thousands are set apart
    for who, more in ((browser({THEIRS: STAFF}), {}), (client, {"headers": bearer("staff", workspaces=[THEIRS])})):
        answer = ask(who, THEIRS, **more)
        assert answer.status_code == 403
        assert SECRET not in answer.text
    assert _everything(conn) == before


def test_the_list_shows_the_staff_what_an_owner_allowed(client, browser, conn):
    """A balance and a status are worth as much there as on the workspace's own page."""
    both = {OURS: STAFF, THEIRS: STAFF}
    headers = bearer("staff", workspaces=[OURS, THEIRS], sub="u-list")
    for answer in (browser(both, subject="u-list").get("/"), client.get("/", headers=headers)):
        assert answer.status_code == 200
        assert "711.25" not in answer.text
        assert "/workspaces/" not in answer.text
    mixed = browser({OURS: OWNER, THEIRS: STAFF}, subject="u-list").get("/")
    assert f"/workspaces/{OURS}" in mixed.text
    assert "711.25" not in mixed.text
    access.allow(conn, THEIRS, "u-list", "the owner")
    try:
        allowed = browser(both, subject="u-list").get("/")
        assert f"/workspaces/{OURS}" not in allowed.text
        assert "711.25" in allowed.text
    finally:
        access.disallow(conn, THEIRS, "u-list", "the owner")


@pytest.mark.parametrize(
    "route", [route for route in OF_A_WORKSPACE if "{seq}" in route.path or "event_id" in route.path], ids=str
)
def test_their_rows_are_not_found_below_our_own_address(browser, route: Route):
    who = browser()
    for event in (f"{SECRET}-1", f"../../{THEIRS}/usages/{SECRET}-1", f"..%2F..%2F{THEIRS}%2Fusages%2F{SECRET}-1"):
        answer = who.request(route.method, route.at(seq="9999", event=event))
        assert answer.status_code == 404
        assert SECRET not in answer.text.replace(event, "")


@pytest.mark.parametrize(
    "route", [route for route in OF_A_WORKSPACE if route.method in {"POST", "PUT", "DELETE"}], ids=str
)
def test_nobody_but_the_owner_writes(browser, conn, route: Route):
    before = _everything(conn)
    for roles in ({OURS: STAFF}, {"*": OPERATOR}, {THEIRS: OWNER}):
        answer = browser(roles).request(route.method, route.at(OURS), data=_form(route))
        assert answer.status_code in {403, 404}
    after = _everything(conn)
    assert after == before


def _form(route: Route) -> dict[str, str]:
    return dict.fromkeys(route.form, "1") if route.method == "POST" else {}


def _everything(conn) -> list[tuple]:
    """All that an owner can change."""
    tables = ("workspaces", "workspace_readers", "workspace_changes", "service_tokens", "budgets")
    return [conn.execute(f"SELECT * FROM taximeter.{name} AS t ORDER BY t").fetchall() for name in tables]


# -- cursors ----------------------------------------------------------------------------------------------------------


def test_a_cursor_opens_its_own_list_alone(client):
    """Transplanted between workspaces, lists and orders, and between one installation's secret and another's."""
    api = "/api/v1/workspaces"
    both = bearer(workspaces=[OURS, THEIRS])
    cursor = client.get(f"{api}/{THEIRS}/usages", headers=both).json()["next"]
    ours = client.get(f"{api}/{OURS}/usages", headers=both).json()["next"]
    assert client.get(f"{api}/{OURS}/usages", params={"cursor": ours}, headers=both).status_code == 200
    assert client.get(f"{api}/{OURS}/usages", params={"cursor": cursor}, headers=both).status_code == 400
    assert client.get(f"{api}/{THEIRS}/usages", params={"cursor": cursor}, headers=bearer()).status_code == 404
    assert client.get(f"{api}/{OURS}/payments", params={"cursor": ours}, headers=both).status_code == 400
    assert (
        client.get(f"{api}/{OURS}/usages", params={"cursor": ours, "sort": "oldest"}, headers=both).status_code == 400
    )


def test_a_forged_cursor_is_refused(client, settings):
    from taximeter_dashboard.reading import cursors

    scope = f"usages/{OURS}/newest"
    for secret in ("", "secret", "x" * 40, settings.token_secret):
        forged = cursors.write(secret, scope, 5)
        answer = client.get(f"/api/v1/workspaces/{OURS}/usages", params={"cursor": forged}, headers=bearer())
        assert answer.status_code == 400
    for place in (0, -1, 10**30):
        forged = cursors.write(settings.dashboard_secret, scope, place)
        answer = client.get(f"/api/v1/workspaces/{OURS}/usages", params={"cursor": forged}, headers=bearer())
        assert answer.status_code in {200, 400}
        assert SECRET not in answer.text


@pytest.mark.parametrize(
    "pollution", [f"workspace_id={THEIRS}", f"workspace={THEIRS}&subject={THEIRS}", f"id={THEIRS}&id={THEIRS}"]
)
@pytest.mark.parametrize("route", [route for route in OF_A_WORKSPACE if not route.streams], ids=str)
def test_the_address_says_whose_it_is_and_no_parameter(browser, conn, route: Route, pollution: str):
    before = conn.execute("SELECT * FROM taximeter.workspaces WHERE workspace_id = %s", [THEIRS]).fetchall()
    answer = browser().request(
        route.method, f"{route.at(OURS)}?{pollution}", data=_form(route) | {"workspace_id": THEIRS}
    )
    assert answer.status_code in {
        200,
        303,
        422,
        *([404] if "{ticket}" in route.path or route.method == "DELETE" else []),
    }
    assert SECRET not in answer.text
    assert conn.execute("SELECT * FROM taximeter.workspaces WHERE workspace_id = %s", [THEIRS]).fetchall() == before


def test_a_parameter_given_twice_is_one_of_them_or_refused(browser):
    who = browser()
    api = f"/api/v1/workspaces/{OURS}/usages"
    assert who.get(f"{api}?limit=5&limit=1e9").status_code == 422
    assert who.get(f"{api}?sort=newest&sort=drop").status_code == 422
    cursor = who.get(api).json()["next"]
    assert who.get(f"{api}?cursor={cursor}&cursor=x").status_code == 400
    assert (
        who.post(
            f"/workspaces/{OURS}/settings",
            content="low=1&low=NaN",
            headers={"content-type": "application/x-www-form-urlencoded"},
        ).status_code
        == 422
    )


def test_the_host_header_moves_nothing(browser):
    who = browser({OURS: OWNER, THEIRS: OWNER})
    for header in (
        "host",
        "x-forwarded-host",
        "x-forwarded-proto",
        "forwarded",
        "x-original-url",
        "x-rewrite-url",
        "x-http-method-override",
    ):
        answer = who.get(f"/workspaces/{OURS}", headers={header: "evil.example"})
        assert answer.status_code == 200
        assert "evil.example" not in answer.text
        assert "evil.example" not in str(answer.headers)
    assert who.get("/", headers={"host": "evil.example"}).status_code == 200
    alone = browser().get("/", headers={"host": "evil.example"})
    assert alone.headers["location"].startswith("/")
    refused = browser().post(
        f"/workspaces/{OURS}/settings",
        data={"low": "1"},
        headers={"sec-fetch-site": "cross-site", "origin": HOST, "host": "dash.example"},
    )
    assert refused.status_code == 403
