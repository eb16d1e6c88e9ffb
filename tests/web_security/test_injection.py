"""Text that wants to be something else: SQL, a template, a line of a log, a header, a formula, a path, an address, a script.

Thrown at every parameter of every route, and stored in every text that a producer, a payer or a host platform can choose.
"""

from __future__ import annotations

import asyncio
import csv
import io
import re

import pytest

from dashboard_factory import bearer, make_payment, make_settings, make_usage
from taximeter_dashboard.app import create_app
from taximeter_dashboard.auth.viewers import OPERATOR, OWNER, Keys, Viewer
from taximeter_db import access, limits
from taximeter_db.audit.verify import verify
from taximeter_db.ledger import booking
from web_security.attack_surface import HOST, OURS, PAYLOADS, SECRET, THEIRS, Route, foul, leads_away, quoted, routes

ROUTES = routes(create_app(make_settings("postgresql://nobody@127.0.0.1:9/none")))
STORED = "stored"
EVALUATED = str(97_813 * 89_071)
"""Of the templates among the payloads. Long enough that no time and no number on a page contains these digits by chance."""
TEXTS = {name: text for name, text in PAYLOADS.items() if text and name not in {"NUL", "unpaired", "very long", "huge"}}


def harmless(answer) -> None:
    """No error of ours, nothing evaluated, nothing of theirs, no header and no line that was not ours."""
    assert answer.status_code < 500
    assert EVALUATED not in answer.text
    assert SECRET not in answer.text
    assert "root:x:" not in answer.text
    assert "forged" not in "".join(name for name in answer.headers)
    assert "forged" not in answer.headers.get("set-cookie", "")
    if answer.headers.get("content-type", "").startswith("text/html"):
        assert foul(answer.text) == []
    if "location" in answer.headers:
        assert not leads_away(answer.headers["location"])


@pytest.mark.parametrize("route", [route for route in ROUTES if route.query or route.form], ids=str)
def test_in_every_parameter(browser, route: Route):
    who = browser({OURS: OWNER, STORED: OWNER})
    form = {"content-type": "application/x-www-form-urlencoded"}
    for text in PAYLOADS.values():
        for name in route.query:
            harmless(who.request(route.method, f"{route.at()}?{name}={quoted(text)}"))
        for name in route.form:
            harmless(who.request(route.method, route.at(), content=f"{name}={quoted(text)}".encode(), headers=form))


@pytest.mark.parametrize("route", [route for route in ROUTES if "{" in route.path and not route.streams], ids=str)
def test_in_every_place_of_the_address(browser, route: Route):
    places = [place for place in ("seq", "event", "name", "code") if "{" + place in route.path]
    for roles in ({OURS: OWNER}, {"*": OPERATOR}):
        who = browser(roles)
        for payload, text in PAYLOADS.items():
            for place in places:
                harmless(who.request(route.method, route.at(**{place: quoted(text) or "%20"})))
            if route.of_a_workspace:
                answer = who.request(route.method, route.at(quoted(text) or "%20"))
                harmless(answer)
                # The flag of a workspace that was never seen is an operator's to ask for, whatever its id is.
                unseen = "*" in roles and route.path.endswith("/enabled") and limits.is_workspace_id(text)
                assert answer.status_code in {404, 405, 422} or unseen or (roles.get(text) and payload), payload


@pytest.mark.parametrize(
    "header", ["hx-request", "hx-target", "x-taximeter-part", "accept-language", "if-none-match", "range", "cookie"]
)
def test_in_headers(browser, header: str):
    who = browser({OURS: OWNER, STORED: OWNER})
    for text in PAYLOADS.values():
        if text.isprintable() and text.isascii() and len(text) < 1_000:
            for path in ("/", f"/workspaces/{OURS}", f"/api/v1/workspaces/{OURS}/usages"):
                harmless(who.get(path, headers={header: text}))


@pytest.mark.parametrize("start", ["/", "/?after="])
def test_who_sees_many_workspaces_is_attacked_too(browser, start: str):
    for roles in ({OURS: OWNER, STORED: OWNER}, {"*": OPERATOR}):
        for text in PAYLOADS.values():
            answer = browser(roles).get(start + (quoted(text) if start.endswith("=") else ""))
            assert answer.status_code in {200, 422} or "\0" in text
            assert EVALUATED not in answer.text


@pytest.mark.parametrize("payload", PAYLOADS)
def test_in_every_cookie(client, settings, payload: str):
    text = PAYLOADS[payload]
    for name in ("taximeter_session", "taximeter_zone", "taximeter_flow", "taximeter_sign_in"):
        good = Keys(settings).session(Viewer("u-1", "Ada", {OURS: OWNER}))
        for value in (quoted(text), text if text.isprintable() and text.isascii() and '"' not in text else "x"):
            session = "" if name == "taximeter_session" else f"taximeter_session={good}; "
            answer = client.get(f"/workspaces/{OURS}", headers={"cookie": f"{session}{name}={value}"})
            harmless(answer)
            assert answer.status_code == (401 if name == "taximeter_session" else 200)


# -- stored -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(conn) -> None:
    """A workspace whose every text is an attack."""
    for number, text in enumerate(TEXTS.values()):
        said = text.encode("unicode_escape").replace(b'"', b'\\"').replace(b"\\x", b"\\u00").replace(b"'", b"'")
        payload = b'{"input":"%b","output":"%b","metadata":{"k":"%b"}}' % ((re.sub(rb"\\(?![u\"])", b"", said),) * 3)
        short = text[:120]
        event_id = "".join(letter for letter in text if " " <= letter <= "~")[:200].strip() or "x"
        usage = make_usage(STORED, f"{event_id}#{number}", tool=short, provider=short, model=short, payload=payload)
        booking.book(conn, [usage])
        paid = {"note": text, "transaction": {"provider": text, "reference": text, text: text}}
        booking.book(conn, [], [make_payment(STORED, "1", f"{event_id}#{number}", **paid)])
        if text.isprintable() and text.strip():
            access.allow(conn, STORED, short, short)


@pytest.mark.parametrize("route", [route for route in ROUTES if route.method == "GET" and not route.streams], ids=str)
def test_what_is_stored_is_shown_as_text(browser, stored, route: Route):
    who = browser({STORED: OWNER, OURS: OWNER})
    for number in range(1, len(TEXTS) + 1) if "{seq}" in route.path else (1,):
        for headers in ({}, {"hx-request": "true"}, {"x-taximeter-part": "details"}):
            answer = who.get(route.at(STORED, seq=str(number)), headers=headers)
            harmless(answer)
            if route.of_a_workspace and "event_id" not in route.path:
                assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/", f"/workspaces/{OURS}/settings"])
def test_names_from_the_host_platform_are_shown_as_text(browser, path: str):
    for text in TEXTS.values():
        who = browser({STORED: OWNER, OURS: OWNER}, name=text, subject=text)
        for method in ("GET", "POST") if path != "/" else ("GET",):
            harmless(who.request(method, path, data={"low": "0.5"} if method == "POST" else None))


@pytest.mark.parametrize("odd", ["a\x00b", "a\nb"], ids=["NUL", "line end"])
def test_names_that_no_database_takes_fail_nothing(client, conn, odd: str):
    """In what the host platform signed: a person's name goes into the log of changes, ids into the list."""
    headers = bearer(name=odd, sub="u-odd") | {"sec-fetch-site": "same-origin"}
    low = conn.execute("SELECT low_balance_threshold FROM taximeter.workspaces WHERE workspace_id = %s", [OURS])
    other = "2" if str(low.fetchone()[0]).startswith("1") else "1"
    assert client.post(f"/workspaces/{OURS}/settings", data={"low": other}, headers=headers).status_code == 303
    page = client.get(f"/workspaces/{OURS}/settings", headers=headers)
    assert "a\N{REPLACEMENT CHARACTER}b (u-odd)" in page.text
    listed = client.get("/", headers=bearer(workspaces=[OURS, THEIRS, odd]))
    assert listed.status_code == 200
    assert f"/workspaces/{THEIRS}" in listed.text


def test_every_stored_text_finds_its_rows_as_a_filter(browser, stored):
    who = browser({STORED: OWNER})
    for text in TEXTS.values():
        answer = who.get(f"/workspaces/{STORED}/usages?tool={quoted(text[:120])}&model={quoted(text[:120])}")
        harmless(answer)
        assert answer.status_code in {200, 422}


def test_the_stream_is_one_line_of_json_however_it_is_named(browser, app, stored):
    """The stream itself never ends; what it sends is made here by the same function."""
    from starlette.requests import Request

    from taximeter_dashboard.pages import live

    app_context = app.state.app_context
    scope = {"type": "http", "method": "GET", "path": f"/workspaces/{STORED}/events", "headers": [], "app": app}
    scope |= {"query_string": b"", "root_path": "", "scheme": "http", "server": ("dash.example", 80)}
    for text in TEXTS.values():
        state = live._state(Request(scope), app_context, Viewer(text, text, {STORED: OWNER}), STORED)
        assert foul(state["card"]) == []
        assert EVALUATED not in state["card"]


def test_the_export_runs_nothing(browser, stored):
    answer = browser({STORED: OWNER}).get(f"/workspaces/{STORED}/export.csv")
    rows = list(csv.reader(io.StringIO(answer.text, newline="")))
    assert {len(row) for row in rows} == {len(rows[0])}
    for row in rows[1:]:
        for cell in (row[1], row[4], row[5], row[6]):
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert answer.headers["content-disposition"] == f'attachment; filename="usages-{STORED}.csv"'


def test_the_ledger_is_whole_after_all_that(conn):
    assert verify(conn).ok
    tables = conn.execute("SELECT count(*) FROM pg_class WHERE relname = 'usages'").fetchone()
    assert tables == (1,)


# -- addresses, sessions, bodies --------------------------------------------------------------------------------------

AWAY = [
    *[
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "https://evil.example",
        "https:evil.example",
    ],
    *[
        "/\t/evil.example",
        "/\n/evil.example",
        "\t//evil.example",
        " //evil.example",
        "javascript:alert(1)",
        "data:text/html,x",
    ],
    *[
        "/%09/evil.example",
        "/%5cevil.example",
        "http:/\\evil.example",
        "@evil.example",
        "//dash.example@evil.example",
        "/.//evil.example",
    ],
    *["/x\r\nlocation: https://evil.example", "/\u2028/evil.example", "\x00//evil.example", "//evil.example/%2f.."],
]


@pytest.mark.parametrize("back", AWAY, ids=repr)
def test_no_way_back_leads_to_another_host(browser, back: str):
    who = browser()
    for address in (
        f"/zone?to=UTC&back={quoted(back)}",
        f"/sign-in?back={quoted(back)}",
        f"/?back={quoted(back)}&next={quoted(back)}",
    ):
        answer = who.get(address)
        harmless(answer)
    answer = who.get(f"/zone?to=UTC&back={quoted(back)}")
    assert (answer.status_code, leads_away(answer.headers.get("location", "/"))) == (
        400 if "\0" in back else 303,
        False,
    )


@pytest.mark.parametrize(
    "path",
    ["/static/..%2fapp.py", "/static/%2e%2e/settings.py", "/static/....//app.py", "/static/%2fetc%2fpasswd", "/static/app.css%00.js",
     "/static/..\\app.py", "/static/.", "/static//etc/passwd", "/static/templates/base.html", "/static/htmx.LICENSE"],
)  # fmt: skip
def test_static_files_are_those_and_no_others(client, secret_file: str, path: str):
    answer = client.get(path)
    assert answer.status_code == 404
    assert secret_file not in answer.text


def test_a_session_given_before_signing_in_is_not_the_one_after(client, settings):
    """Fixation: whatever cookie an attacker planted, signing in makes another, and the planted one opens nothing."""
    planted = Keys(settings).session(Viewer("attacker", "Eve", {THEIRS: OWNER}))
    client.cookies.set("taximeter_session", planted)
    code = Keys(settings).sign_in_code(Viewer("u-1", "Ada", {OURS: OWNER}))
    answer = client.get(f"/sign-in/{code}")
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"]
    assert planted not in cookie
    assert {"httponly", "samesite=lax"} <= {part.strip().lower() for part in cookie.split(";")}
    assert client.get(f"/sign-in/{code}").status_code == 401
    # signed out means out, also for a copy of the cookie
    value = cookie.split(";")[0]
    fresh = {"cookie": value}
    assert client.get(f"/workspaces/{OURS}", headers=fresh).status_code == 200
    assert client.post("/sign-out", headers={**fresh, "sec-fetch-site": "same-origin"}).status_code == 303
    assert client.get(f"/workspaces/{OURS}", headers=fresh).status_code == 401


def test_a_tampered_session_opens_nothing(client, settings):
    good = Keys(settings).session(Viewer("u-1", "Ada", {OURS: OWNER}))
    other = Keys(settings).session(Viewer("u-1", "Ada", {THEIRS: OWNER}))
    head, body, signature = good.split(".")
    forged = [
        f"{head}.{other.split('.')[1]}.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}",
        f".{body}.{signature}",
        good + "A",
    ]
    forged += [
        good[:place] + ("A" if good[place] != "A" else "B") + good[place + 1 :] for place in range(0, len(good) - 1, 7)
    ]
    forged += [Keys(settings).sign_in_code(Viewer("u-1", "Ada", {OURS: OWNER})), bearer()["authorization"][7:]]
    for cookie in forged:
        assert client.get(f"/workspaces/{OURS}", headers={"cookie": f"taximeter_session={cookie}"}).status_code == 401


def test_one_kind_of_token_is_no_other(client, settings):
    keys, viewer = Keys(settings), Viewer("u-1", "Ada", {OURS: OWNER})
    for token in (keys.session(viewer), keys.sign_in_code(viewer), "", "null", "." * 3, "x" * 20_000):
        answer = client.get(f"/api/v1/workspaces/{OURS}/summary", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 401
    for code in (keys.session(viewer), bearer()["authorization"][7:]):
        assert client.get(f"/sign-in/{code}").status_code == 401
    every = bearer("owner", workspaces=["*"])
    assert client.get(f"/api/v1/workspaces/{THEIRS}/summary", headers=every).status_code == 404


@pytest.mark.parametrize("route", [route for route in ROUTES if route.method == "POST"], ids=str)
@pytest.mark.parametrize("announced", [b"", b"1000000000000"])
def test_an_endless_body_is_not_read(app, route: Route, announced: bytes):
    """Nobody needs to be signed in to send one; so it is refused after some kilobytes, whatever length it announces."""
    pieces, statuses = 0, []
    headers = [(b"host", b"dash.example"), (b"sec-fetch-site", b"same-origin")]
    headers += [
        (b"content-type", b"application/x-www-form-urlencoded"),
        *([(b"content-length", announced)] if announced else []),
    ]
    scope = {"type": "http", "method": "POST", "path": route.at(), "raw_path": route.at().encode(), "headers": headers}
    scope |= {
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "server": ("dash.example", 80),
        "http_version": "1.1",
    }

    async def receive() -> dict[str, object]:
        nonlocal pieces
        pieces += 1
        return {"type": "http.request", "body": b"low=" + b"1" * 16_380, "more_body": pieces < 10_000}

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    asyncio.run(app(scope, receive, send))
    assert pieces <= 8
    assert statuses == [413] if route.form or announced else statuses[0] < 500


def test_errors_show_nothing_of_the_inside(client):
    for path in ("/nope", f"/workspaces/{OURS}/nope", "/api/v1/nope", f"/api/v1/workspaces/{OURS}/usages?limit=x"):
        for header in ({}, bearer()):
            answer = client.get(path, headers=header)
            assert answer.status_code < 500
            assert not re.search(r"Traceback|\.py|psycopg|SELECT|/home|/work|site-packages", answer.text)
    assert "server" not in client.get(f"{HOST}/signed-out").headers
