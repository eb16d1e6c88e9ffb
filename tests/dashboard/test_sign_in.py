"""OpenID Connect against a real provider, keys by address, sign-out, roles by the host's own words."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from starlette.testclient import TestClient

from dashboard_factory import AUDIENCE, ISSUER, bearer, make_settings, make_token, make_usage
from servers.oidc import CLIENT_ID, CLIENT_SECRET
from taximeter_dashboard.app import create_app
from taximeter_dashboard.auth import claims, key_sources
from taximeter_dashboard.auth.viewers import OPERATOR, OWNER, READER, STAFF, Keys, Viewer
from taximeter_dashboard.errors import ClaimError, SignInNeededError, SignInUnavailableError
from taximeter_db.errors import ConfigurationError

TESTS = Path(__file__).parents[1]
OWNS = {"name": "Ada", "role": "owner", "workspaces": ["acme"]}


class Provider:
    """The provider's process, and the browser's side of it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx2.Client(timeout=10)

    def misbehave(self, **faults) -> dict[str, int]:
        return self.http.post(f"{self.url}/misbehave", json=faults).json()

    def sign(self, **claims) -> str:
        now = int(time.time())
        usual = {"iss": ISSUER, "aud": AUDIENCE, "exp": now + 60, "sub": "u-1", "role": "owner", "workspaces": ["acme"]}
        return self.http.post(f"{self.url}/sign", json={**usual, **claims}).json()["token"]

    def log_in(self, address: str, sub: str = "u-1", **claims) -> str:
        """Fill in the provider's form; returns the path that leads back to the page."""
        form = {"sub": sub, "claims": json.dumps(claims or OWNS)}
        back = self.http.post(address, data=form).headers["location"]
        parts = urlsplit(back)
        return f"{parts.path}?{parts.query}"


@pytest.fixture(scope="module")
def provider_process():
    command = [sys.executable, "-m", "servers.oidc"]
    process = subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, text=True)
    provider = Provider(f"http://127.0.0.1:{int(process.stdout.readline())}")
    yield provider
    provider.http.close()
    process.terminate()
    process.wait(10)
    process.stdout.close()


@pytest.fixture
def provider(provider_process):
    provider_process.misbehave()
    yield provider_process
    provider_process.misbehave()


@pytest.fixture
def visit(database_url, provider, book):
    """Factory of browsers at a page that signs in through the provider."""
    book(make_usage())
    opened = []

    def visit(**changes) -> TestClient:
        given = {
            "dashboard_url": "http://dash.example",
            "oidc_issuer": provider.url,
            "oidc_client_id": CLIENT_ID,
            "oidc_client_secret": CLIENT_SECRET,
        }
        settings = make_settings(database_url, **{**given, **changes})
        settings.check()
        client = TestClient(create_app(settings), base_url="http://dash.example", follow_redirects=False)
        opened.append(client)
        return client

    yield visit
    for client in opened:
        client.app.state.app_context.close()
        client.close()


def test_the_code_flow_signs_in_and_out(visit, provider):
    browser = visit()
    refused = browser.get("/workspaces/acme/payments")
    assert refused.status_code == 401
    assert 'href="/sign-in?back=%2Fworkspaces%2Facme%2Fpayments"' in refused.text
    begun = browser.get("/sign-in?back=%2Fworkspaces%2Facme%2Fpayments")
    asked = parse_qs(urlsplit(begun.headers["location"]).query)
    assert asked["redirect_uri"] == ["http://dash.example/signed-in"]
    assert asked["code_challenge_method"] == ["S256"]
    cookie = begun.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert asked["state"][0] not in cookie
    path = provider.log_in(begun.headers["location"])
    answer = browser.get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, "/workspaces/acme/payments")
    assert browser.get("/workspaces/acme/payments").status_code == 200
    assert browser.get("/workspaces/other").status_code == 404
    assert browser.get(path).status_code == 401  # neither the flow nor the code works twice

    stolen = browser.cookies["taximeter_session"]
    out = browser.post("/sign-out", headers={"sec-fetch-site": "same-origin"})
    assert out.headers["location"] == "/signed-out"
    assert f"{provider.url}/end?" in browser.get("/signed-out").text
    assert browser.get("/workspaces/acme").status_code == 401
    browser.cookies.set("taximeter_session", stolen)
    assert browser.get("/workspaces/acme").status_code == 401


def test_a_callback_that_this_browser_did_not_begin_is_refused(visit, provider):
    mine, theirs = visit(), visit()
    path = provider.log_in(theirs.get("/sign-in").headers["location"])
    assert mine.get(path).status_code == 401  # no flow of its own
    mine.get("/sign-in")
    assert mine.get(path).status_code == 401  # another state
    assert "taximeter_session" not in mine.cookies
    assert theirs.get("/signed-in?state=x&code=y").status_code == 401
    assert theirs.get("/signed-in?error=access_denied").status_code == 401
    assert theirs.get(path).status_code == 303


def test_the_verifier_is_what_the_code_is_bound_to(visit, provider):
    """A code that was stolen on its way serves nobody else: their flow has another verifier."""
    victim, thief = visit(), visit()
    stolen = parse_qs(urlsplit(provider.log_in(victim.get("/sign-in").headers["location"])).query)
    state = parse_qs(urlsplit(thief.get("/sign-in").headers["location"]).query)["state"][0]
    assert thief.get("/signed-in", params={"state": state, "code": stolen["code"][0]}).status_code == 401


BROKEN_RULES = [
    {"claims": {"nonce": "another"}},
    {"claims": {"nonce": None}},
    {"claims": {"aud": "somebody else"}},
    {"claims": {"aud": [CLIENT_ID, "other"]}},
    {"claims": {"azp": "other"}},
    {"claims": {"iss": "https://evil.example"}},
    {"claims": {"exp": 1}},
    {"claims": {"exp": None}},
    {"claims": {"nbf": 2**33}},
    {"claims": {"sub": None}},
    {"key": "other"},
    {"answer_iss": "https://evil.example"},
    {"claims_in": "userinfo", "userinfo_sub": "somebody else"},
]


def test_a_provider_that_breaks_a_rule_signs_nobody_in(visit, provider):
    browser = visit()
    let_in = []
    for fault in BROKEN_RULES:
        address = browser.get("/sign-in").headers["location"]
        provider.misbehave(**fault)
        if browser.get(provider.log_in(address)).status_code != 401 or "taximeter_session" in browser.cookies:
            let_in.append(fault)
    assert let_in == []


def test_claims_may_come_from_the_user_info(visit, provider):
    browser = visit()
    provider.misbehave(claims_in="userinfo")
    assert browser.get(provider.log_in(browser.get("/sign-in").headers["location"])).status_code == 303
    assert browser.get("/").headers["location"] == "/workspaces/acme"


def test_a_provider_that_is_away_or_names_another_is_503(visit, provider):
    provider.misbehave(issuer="https://evil.example")
    assert visit().get("/sign-in").status_code == 503
    assert visit(oidc_issuer="http://127.0.0.1:9").get("/sign-in").status_code == 503
    assert visit(oidc_issuer="").get("/sign-in").status_code == 404


def test_nobody_is_led_to_another_site(visit, provider):
    for back in ("//evil.example", "https://evil.example", "/\\evil.example", "/\t/evil.example"):
        browser = visit()
        path = provider.log_in(browser.get("/sign-in", params={"back": back}).headers["location"])
        assert browser.get(path).headers["location"] == "/"


def _remote(database_url, provider, **changes) -> Keys:
    given = {"token_secret": "", "token_keys_url": f"{provider.url}/jwks", "token_algorithms": ("RS256",)}
    settings = make_settings(database_url, **{**given, **changes})
    settings.check()
    return Keys(settings)


def test_keys_by_address_are_kept_and_fetched_anew_for_a_new_key(database_url, provider, monkeypatch):
    keys = _remote(database_url, provider)
    before = provider.misbehave()
    assert keys.read_host_token(provider.sign()).role("acme") == OWNER
    old = provider.sign()
    for _ in range(5):
        keys.read_host_token(old)
    assert provider.misbehave(rotate=True)["jwks"] == before.get("jwks", 0) + 1
    new = provider.sign()
    with pytest.raises(SignInNeededError):  # asked a moment ago: strangers must not make us hammer the server
        keys.read_host_token(new)
    monkeypatch.setattr(key_sources, "RETRY_SECONDS", 0.0)
    assert keys.read_host_token(new).role("acme") == OWNER
    with pytest.raises(SignInNeededError):  # withdrawn
        keys.read_host_token(old)


def test_keys_serve_on_for_a_while_when_their_server_is_away(database_url, provider, monkeypatch):
    monkeypatch.setattr(key_sources, "RETRY_SECONDS", 0.0)
    keys, token = _remote(database_url, provider), provider.sign()
    keys.read_host_token(token)
    monkeypatch.setattr(key_sources, "FRESH_SECONDS", 0.0)
    for fault in ("error", "large"):
        provider.misbehave(jwks=fault)
        assert keys.read_host_token(token).subject == "u-1"
    monkeypatch.setattr(key_sources, "STALE_SECONDS", 0.0)
    with pytest.raises(SignInUnavailableError):
        keys.read_host_token(token)
    with pytest.raises(SignInUnavailableError):
        _remote(database_url, provider, token_keys_url="http://127.0.0.1:9/jwks").read_host_token(token)


def test_a_key_of_another_kind_or_name_checks_nothing(database_url, provider):
    from joserfc import jwt
    from joserfc.jwk import ECKey, OctKey, RSAKey

    keys = _remote(database_url, provider, token_algorithms=("RS256", "ES256"))
    now = int(time.time())
    body = {"iss": ISSUER, "aud": AUDIENCE, "exp": now + 60, "sub": "u", "role": "owner", "workspaces": ["acme"]}
    first = keys.read_host_token(provider.sign())
    assert first.role("acme") == OWNER
    known = httpx2.get(f"{provider.url}/jwks").json()["keys"][0]["kid"]
    rsa, elliptic = RSAKey.generate_key(2048), ECKey.generate_key("P-256")
    forged = [
        jwt.encode({"alg": "RS256", "kid": "nobody's"}, body, rsa),
        jwt.encode({"alg": "RS256", "kid": known}, body, rsa),
        jwt.encode({"alg": "RS256"}, body, rsa),
        jwt.encode({"alg": "ES256", "kid": known}, body, elliptic),
        jwt.encode({"alg": "HS256", "kid": known}, body, OctKey.import_key("x" * 40)),
    ]
    for token in forged:
        with pytest.raises(SignInNeededError):
            keys.read_host_token(token)


def test_shared_keys_in_a_public_set_are_left_out():
    from joserfc.jwk import OctKey, RSAKey

    public = RSAKey.generate_key(2048).as_dict(private=False)
    entries = [OctKey.import_key("x" * 40).as_dict(), {**public, "use": "enc"}, {"kty": "RSA"}, 7, public]
    assert len(key_sources.import_keys({"keys": entries})) == 1


def test_a_key_file_may_be_a_key_set(tmp_path, database_url):
    from joserfc import jwt
    from joserfc.jwk import RSAKey

    first, second = (RSAKey.generate_key(2048, {"kid": kid}) for kid in ("a", "b"))
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [key.as_dict(private=False) for key in (first, second)]}))
    keys = Keys(
        make_settings(
            database_url, token_secret="", token_keys=str(tmp_path / "keys.json"), token_algorithms=("RS256",)
        )
    )
    claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 60, "sub": "u", "role": "owner"}
    claims["workspaces"] = ["acme"]
    assert keys.read_host_token(jwt.encode({"alg": "RS256", "kid": "b"}, claims, second)).role("acme") == OWNER
    for kid, key in (("a", second), ("c", second)):
        with pytest.raises(SignInNeededError):
            keys.read_host_token(jwt.encode({"alg": "RS256", "kid": kid}, claims, key))


@pytest.mark.parametrize(
    ("given", "roles"),
    [
        ({"realm": {"roles": ["x", "billing-admin"]}, "tenants": ["acme", "beta"]}, {"acme": OWNER, "beta": OWNER}),
        ({"realm": {"roles": ["support"]}, "tenants": "acme"}, {"acme": STAFF}),
        ({"realm": {"roles": ["support", "viewer"]}, "tenants": ["acme"]}, {"acme": READER}),
        ({"realm": {"roles": "root"}, "tenants": ["acme"]}, {"*": OPERATOR}),
        ({"realm": {"roles": "owner"}, "tenants": ["acme"]}, None),
        ({"realm": {}, "tenants": ["acme"]}, None),
        ({"tenants": {"acme": "billing-admin", "beta": "nobody", "*": "billing-admin", "c": "root"}}, {"acme": OWNER}),
    ],
)
def test_claims_and_roles_are_what_the_settings_say(given, roles):
    settings = make_settings(
        "postgresql://x",
        token_role_claim="realm.roles",
        token_workspaces_claim="tenants",
        token_owner_roles=("billing-admin",),
        token_staff_roles=("support",),
        token_reader_roles=("viewer",),
        token_operator_roles=("root",),
    )
    if roles is None:
        with pytest.raises(ClaimError, match=r"realm\.roles"):
            claims.viewer(settings, {"sub": "u", **given})
    else:
        assert claims.viewer(settings, {"sub": "u", **given}).roles == roles


def test_a_member_whom_the_platform_lets_read_reads_and_changes_nothing(client, book):
    book(make_usage())
    token = bearer(READER)
    assert client.get("/api/v1/workspaces/acme/summary", headers=token).status_code == 200
    assert client.get("/workspaces/acme/settings", headers=token).status_code == 403
    assert client.post("/workspaces/acme/settings", data={"low": "1"}, headers=token).status_code == 403


def test_the_hosts_own_cookie_may_bring_the_token(database_url, book):
    book(make_usage())
    app = create_app(make_settings(database_url, token_cookie="host_session"))
    with TestClient(app, base_url="http://dash.example") as browser:
        browser.cookies.set("host_session", make_token())
        assert browser.get("/workspaces/acme").status_code == 200
        assert browser.post("/workspaces/acme/settings", data={"low": "1"}).status_code == 403
        browser.cookies.set("host_session", "nonsense")
        assert browser.get("/workspaces/acme").status_code == 401


def test_a_session_lasts_as_long_as_the_settings_say(database_url):
    keys = Keys(make_settings(database_url, dashboard_session_hours=1))
    before = int(time.time())
    session = keys.read_session(keys.session(Viewer("u", "U", {"acme": OWNER})))
    assert before + 3600 <= session.ends_at.timestamp() <= time.time() + 3600


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"token_keys_url": "http://keys.example/jwks"}, "TOKEN_KEYS_URL"),
        ({"token_keys_url": "https://k.example/jwks", "token_keys": "/x"}, "not both"),
        ({"token_algorithms": ("RS256",)}, "TOKEN_KEYS_URL"),
        ({"oidc_issuer": "http://login.example", "oidc_client_id": "x"}, "OIDC_ISSUER"),
        ({"oidc_issuer": "https://login.example"}, "OIDC_CLIENT_ID"),
        ({"oidc_issuer": "https://login.example", "oidc_client_id": "x"}, "DASHBOARD_URL"),
        ({"oidc_algorithms": ("HS256",)}, "OIDC_ALGORITHMS"),
        ({"oidc_scopes": "profile"}, "OIDC_SCOPES"),
        ({"dashboard_home_url": "javascript:alert(1)"}, "HOME_URL"),
    ],
)
def test_settings_that_would_not_be_safe_are_refused(changes, names):
    with pytest.raises(ConfigurationError, match=names):
        make_settings("postgresql://x", **changes).check()
