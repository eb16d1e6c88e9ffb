"""Who may see what: tokens, roles, one-time links, other sites' writes."""

from __future__ import annotations

import base64
import json
import time

import psycopg
import pytest
from joserfc.jwk import OctKey, RSAKey

from dashboard_factory import AUDIENCE, ISSUER, bearer, make_settings, make_token, make_usage
from taximeter_dashboard.auth.viewers import OWNER, Keys, Viewer
from taximeter_dashboard.errors import SignInNeededError
from taximeter_dashboard.settings import Settings
from taximeter_db import access
from taximeter_db.errors import ConfigurationError

URL = "/api/v1/workspaces/acme/summary"


def _unsigned() -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 600, "sub": "x", "role": "owner"}
    return f"{part({'alg': 'none'})}.{part({**claims, 'workspaces': ['acme']})}."


BAD_TOKENS = {
    "alg none": _unsigned,
    "no signature": lambda: make_token().rpartition(".")[0] + ".",
    "another key": lambda: make_token(key=OctKey.import_key("x" * 40)),
    "another audience": lambda: make_token(aud="billing"),
    "another issuer": lambda: make_token(iss="https://evil.example"),
    "expired": lambda: make_token(exp=int(time.time()) - 60),
    "not yet valid": lambda: make_token(nbf=int(time.time()) + 60),
    "no expiry": lambda: make_token(exp=None),
    "no audience": lambda: make_token(aud=None),
    "no issuer": lambda: make_token(iss=None),
    "no subject": lambda: make_token(sub=None),
    "an unknown role": lambda: make_token(role="root"),
    "no role": lambda: make_token(role=None),
    "no token": lambda: "x",
    "binary": lambda: "\u00ff.\u00ff.\u00ff".encode("latin-1").decode("latin-1"),
}


@pytest.mark.parametrize("kind", BAD_TOKENS)
def test_a_bad_token_is_401(client, book, kind: str):
    book(make_usage())
    header = f"Bearer {BAD_TOKENS[kind]()}".encode("latin-1")
    answer = client.get(URL, headers={"authorization": header})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_shared_signature_made_with_the_public_key_is_401(tmp_path, database_url):
    private = RSAKey.generate_key(2048)
    public = private.as_pem(private=False)
    (tmp_path / "key.pem").write_bytes(public)
    keys = Keys(
        make_settings(database_url, token_secret="", token_keys=str(tmp_path / "key.pem"), token_algorithms=("RS256",))
    )
    from joserfc import jwt

    claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 60, "sub": "u", "role": "owner"}
    claims["workspaces"] = ["acme"]
    good = jwt.encode({"alg": "RS256"}, claims, private)
    assert keys.read_host_token(good).role("acme") == OWNER
    # joserfc would warn of such a key, so the forgery is made by hand
    import hashlib
    import hmac

    header = base64.urlsafe_b64encode(b'{"alg":"HS256"}').decode().rstrip("=")
    body = f"{header}.{good.split('.')[1]}"
    forged = base64.urlsafe_b64encode(hmac.digest(public, body.encode(), hashlib.sha256)).decode().rstrip("=")
    with pytest.raises(SignInNeededError):
        keys.read_host_token(f"{body}.{forged}")


def test_without_a_token_is_401(client):
    assert client.get(URL).status_code == 401
    client.cookies.set("taximeter_session", "nonsense")
    assert client.get(URL).status_code == 401


@pytest.mark.parametrize(
    ("theirs", "absent"),
    [
        ("/api/v1/workspaces/other/summary", "/api/v1/workspaces/absent/summary"),
        ("/api/v1/workspaces/other/usages/theirs", "/api/v1/workspaces/absent/usages/theirs"),
        ("/api/v1/workspaces/acme/usages/theirs", "/api/v1/workspaces/acme/usages/nobodys"),
        ("/api/v1/workspaces/other/export", "/api/v1/workspaces/absent/export"),
        ("/workspaces/other", "/workspaces/absent"),
        ("/workspaces/other/usages/1", "/workspaces/absent/usages/1"),
        ("/workspaces/other/events", "/workspaces/absent/events"),
        ("/workspaces/other/export.csv", "/workspaces/absent/export.csv"),
        ("/workspaces/other/exports/x", "/workspaces/absent/exports/x"),
    ],
)
def test_what_is_anothers_is_as_if_it_were_absent(client, book, monkeypatch, theirs: str, absent: str):
    """The same bytes, the same headers, and the same work: as many questions to the database."""
    book(make_usage("acme"), make_usage("other", event_id="theirs"))
    asked = []
    execute = psycopg.Cursor.execute
    monkeypatch.setattr(
        psycopg.Cursor, "execute", lambda *args, **more: asked.append(args[1]) or execute(*args, **more)
    )
    counts: dict[str, list[int]] = {theirs: [], absent: []}
    for path in (theirs, absent) * 4:  # the first ones fill the caches, and now and then the pool opens a connection
        asked.clear()
        answer = client.get(path, headers=bearer())
        counts[path].append(len(asked))
        if path == theirs:
            one = answer
        else:
            other = answer
    assert one.status_code == other.status_code == 404
    assert one.text.replace(theirs, "") == other.text.replace(absent, "")
    lengths = {"content-length"} if theirs in one.text else set()  # a page says where one is
    assert [(k, v) for k, v in one.headers.items() if k not in lengths] == [
        (k, v) for k, v in other.headers.items() if k not in lengths
    ]
    assert min(counts[theirs]) == min(counts[absent])


def test_an_id_that_cannot_be_one_is_404(client):
    answer = client.get("/api/v1/workspaces/a%20b/summary", headers=bearer(workspaces=["a b"]))
    assert answer.status_code == 404


def test_staff_may_look_once_an_owner_allowed_it(client, book, conn):
    book(make_usage())
    assert client.get(URL, headers=bearer("staff")).status_code == 403
    access.allow(conn, "acme", "u-1", "the owner")
    assert client.get(URL, headers=bearer("staff")).status_code == 200
    assert client.get(URL, headers=bearer("staff", sub="u-2")).status_code == 403
    access.disallow(conn, "acme", "u-1", "the owner")
    assert client.get(URL, headers=bearer("staff")).status_code == 403
    assert [(c.field, c.value_before, c.value_after) for c in access.changes(conn, "acme")] == [
        ("reader", "u-1", None),
        ("reader", None, "u-1"),
    ]


def test_roles_may_differ_by_workspace(client, book):
    book(make_usage("acme"), make_usage("beta"))
    token = bearer(role=None, workspaces={"acme": "owner", "beta": "staff", "*": "owner"})
    assert client.get(URL, headers=token).status_code == 200
    assert client.get("/api/v1/workspaces/beta/summary", headers=token).status_code == 403
    assert client.get("/api/v1/workspaces/gamma/summary", headers=token).status_code == 404


def test_an_operators_looks_are_logged(client, book, conn):
    book(make_usage())
    assert client.get(URL, headers=bearer("operator", workspaces=[], sub="op-7")).status_code == 200
    unknown = client.get("/api/v1/workspaces/none/summary", headers=bearer("operator"))
    assert unknown.status_code == 404
    looks = conn.execute("SELECT workspace_id, operator, path FROM taximeter.operator_looks").fetchall()
    assert looks == [("acme", "op-7", URL)]
    assert client.get("/", headers=bearer("operator", workspaces=[], sub="op-7")).status_code == 200
    last = conn.execute("SELECT workspace_id, path FROM taximeter.operator_looks ORDER BY id DESC LIMIT 1").fetchone()
    assert last == ("*", "/")  # the list shows balances, too


def test_a_session_is_no_sign_in_code_and_no_host_token(settings):
    keys = Keys(settings)
    viewer = Viewer("u", "U", {"acme": OWNER})
    assert keys.read_session(keys.session(viewer)).viewer == viewer
    for read, token in (
        (keys.read_session, keys.sign_in_code(viewer)),
        (keys.read_sign_in_code, keys.session(viewer)),
        (keys.read_host_token, keys.session(viewer)),
        (keys.read_session, make_token()),
    ):
        with pytest.raises(SignInNeededError):
            read(token)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"dashboard_secret": "short"}, "DASHBOARD_SECRET"),
        ({"token_issuer": ""}, "TOKEN_ISSUER"),
        ({"token_audience": ""}, "TOKEN_AUDIENCE"),
        ({"token_algorithms": ()}, "TOKEN_ALGORITHMS"),
        ({"token_algorithms": ("none",)}, "TOKEN_ALGORITHMS"),
        ({"token_secret": "short"}, "TOKEN_SECRET"),
    ],
)
def test_unsafe_settings_are_refused(changes, names: str):
    with pytest.raises(ConfigurationError, match=names):
        make_settings("postgresql://x", **changes).check()


def test_settings_from_the_environment():
    given = {"TAXIMETER_DATABASE_URL": "postgresql://x:pw@y/z", "TAXIMETER_DASHBOARD_SECRET": "s" * 40}
    found = Settings.from_env({**given, "TAXIMETER_DASHBOARD_PORT": "9000"})
    assert (found.dashboard_port, found.accepts_tokens) == (9000, False)
    assert "pw" not in repr(found)
    with pytest.raises(ConfigurationError, match="DASHBOARD_SECRET"):
        Settings.from_env({"TAXIMETER_DATABASE_URL": "postgresql://x"})
    for bad in ({"TAXIMETER_DASHBOARD_PORT": "x"}, {"TAXIMETER_LOW_BALANCE": "NaN"}):
        with pytest.raises(ConfigurationError, match=next(iter(bad))):
            Settings.from_env({**given, **bad})
