"""Rows 41 to 50 of the list of bad input: what arrives over HTTP and through the command line."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey
from starlette.testclient import TestClient

from dashboard_factory import AUDIENCE, ISSUER, bearer, make_payment, make_settings, make_token, make_usage
from instances import taximeter
from taximeter_dashboard.app import create_app
from taximeter_db.connect import booking_connection
from taximeter_db.ledger import booking

API = "/api/v1/workspaces/acme"


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A ledger in which acme and other have traffic of their own."""
    with booking_connection(database_url) as made:
        for workspace in ("acme", "other"):
            booking.book(made, [], [make_payment(workspace, "25", f"{workspace}-payment")])
            booking.book(made, [make_usage(workspace, f"{workspace}-{number}") for number in range(25)])
        yield made


@pytest.fixture
def client(database_url: str, conn) -> Iterator[TestClient]:
    settings = make_settings(database_url, dashboard_minimum_from="-5")
    with TestClient(create_app(settings), base_url="http://dash.example", follow_redirects=False) as made:
        yield made


def _part(value: object) -> str:
    return (
        base64.urlsafe_b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).decode().rstrip("=")
    )


def _claims(**changes: Any) -> dict[str, Any]:
    claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 600, "sub": "u-1", "role": "owner"}
    return {**claims, "workspaces": ["acme"], **changes}


def _unsigned(algorithm: str) -> str:
    return f"{_part({'alg': algorithm})}.{_part(_claims())}."


BAD_TOKENS: dict[str, Callable[[], str]] = {
    **{f"alg {name}": (lambda name=name: _unsigned(name)) for name in ("none", "None", "NONE", "nOnE", "")},
    "another key": lambda: make_token(key=OctKey.import_key("x" * 40)),
    "a wrong audience": lambda: make_token(aud="billing"),
    "a wrong issuer": lambda: make_token(iss="https://evil.example"),
    "expired": lambda: make_token(exp=int(time.time()) - 60),
    "not yet valid": lambda: make_token(nbf=int(time.time()) + 60),
}


@pytest.mark.parametrize("kind", BAD_TOKENS)
def test_row_43_a_token_that_does_not_hold_is_401(client: TestClient, kind: str):
    assert client.get(f"{API}/summary", headers=bearer()).status_code == 200
    answer = client.get(f"{API}/summary", headers={"authorization": f"Bearer {BAD_TOKENS[kind]()}"})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"


def test_row_43_hs256_signed_with_the_public_key_is_401(tmp_path, database_url: str, conn):
    private = RSAKey.generate_key(2048)
    public = private.as_pem(private=False)
    (tmp_path / "key.pem").write_bytes(public)
    given = {"token_secret": "", "token_keys": str(tmp_path / "key.pem"), "token_algorithms": ("RS256",)}
    body = f"{_part({'alg': 'HS256'})}.{_part(_claims())}"
    forged = f"{body}.{_part(hmac.digest(public, body.encode(), hashlib.sha256))}"
    with TestClient(create_app(make_settings(database_url, **given))) as client:
        for token, status in ((jwt.encode({"alg": "RS256"}, _claims(), private), 200), (forged, 401)):
            answer = client.get(f"{API}/summary", headers={"authorization": f"Bearer {token}"})
            assert answer.status_code == status


@pytest.mark.parametrize("path", ["other/summary", "other/usages", "other/usages/other-1", "acme/usages/other-1"])
def test_row_44_what_is_anothers_is_404_exactly_as_if_absent(client: TestClient, path: str):
    theirs = client.get(f"/api/v1/workspaces/{path}", headers=bearer())
    absent = client.get(f"/api/v1/workspaces/{path.replace('other', 'never')}", headers=bearer())
    assert theirs.status_code == absent.status_code == 404
    assert {**theirs.json(), "instance": ""} == {**absent.json(), "instance": ""}
    assert theirs.headers == {**absent.headers, "content-length": theirs.headers["content-length"]}


def test_row_45_staff_without_the_owners_role_is_403(client: TestClient):
    for path in ("summary", "usages", "payments", "enabled"):
        assert client.get(f"{API}/{path}", headers=bearer("staff")).status_code == 403
    assert client.post("/workspaces/acme/settings", data={"low": "1"}, headers=bearer("staff")).status_code == 403


@pytest.mark.parametrize(
    "query",
    [
        "limit=1e9",
        "limit=1000000000",
        "limit=0",
        "limit=-1",
        "limit=NaN",
        "limit=101",
        "limit=" + "9" * 400,
        "sort=drop",
        "sort=",
        "page=-1",
        "page=2",
        "tol=chat",
        "workspace_id=other",
        "%20limit=5",
    ],
)
def test_row_46_a_parameter_that_makes_no_sense_is_422_and_named(client: TestClient, query: str):
    answer = client.get(f"{API}/usages?{query}", headers=bearer())
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(query.partition("=")[0].replace("%20", " "))


@pytest.mark.parametrize("path", ["usages", "payments", "status-changes", "analysis", "export"])
def test_row_46_a_parameter_that_is_not_there_is_named_with_those_that_are(client: TestClient, path: str):
    answer = client.get(f"{API}/{path}?colour=red", headers=bearer())
    assert answer.status_code == 422
    named = answer.json()["detail"]
    assert named.startswith("colour: This address has no such parameter. It has: ")
    for name in named.rpartition(": ")[2].rstrip(".").split(", "):
        assert "no such parameter" not in client.get(f"{API}/{path}?{name}=%FF", headers=bearer()).text
    # a tool that asks whether AI is on is never turned away
    assert client.get(f"{API}/enabled?_=1", headers=bearer()).status_code == 200


@pytest.mark.parametrize(
    "query",
    ["page=-1", "page=0", "page=1e9", "page=x", "page=" + "9" * 30, "sort=drop", "before=-1", "upto=" + "9" * 30],
)
def test_row_46_on_the_page_too(client: TestClient, query: str):
    assert client.get(f"/workspaces/acme/usages?{query}", headers=bearer()).status_code == 422


def test_row_47_a_tampered_cursor_is_400(client: TestClient):
    cursor = client.get(f"{API}/usages", headers=bearer()).json()["next"]
    for place in range(len(cursor)):
        other = "A" if cursor[place] != "A" else "B"
        bad = cursor[:place] + other + cursor[place + 1 :]
        assert client.get(f"{API}/usages", params={"cursor": bad}, headers=bearer()).status_code == 400
    for bad in ("x", "é", "=", cursor + "A", cursor * 3, cursor * 200, "%00", "../.."):
        assert client.get(f"{API}/usages", params={"cursor": bad}, headers=bearer()).status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://dash.example.evil.example"},
        {},
    ],
    ids=str,
)
def test_row_48_a_write_from_another_origin_is_403(
    client: TestClient, conn, database_url: str, headers: dict[str, str]
):
    from taximeter_dashboard.auth.viewers import OWNER, Keys, Viewer

    client.cookies.set(
        "taximeter_session", Keys(make_settings(database_url)).session(Viewer("u", "U", {"acme": OWNER}))
    )
    answer = client.post("/workspaces/acme/settings", data={"low": "9"}, headers=headers)
    assert answer.status_code == 403
    limit = "SELECT low_balance_threshold FROM taximeter.workspaces WHERE workspace_id = 'acme'"
    assert conn.execute(limit).fetchone() == (0,)
    assert (
        client.post(
            "/workspaces/acme/settings", data={"low": "9"}, headers={"sec-fetch-site": "same-origin"}
        ).status_code
        == 303
    )
    assert conn.execute(limit).fetchone() == (9,)


@pytest.mark.parametrize(
    "given", [{"minimum": "NaN"}, {"minimum": "Infinity"}, {"minimum": "0.5", "low": "0"}, {"low": "NaN"}]
)
def test_row_49_a_limit_that_makes_no_sense_is_422(client: TestClient, conn, given: dict[str, str]):
    answer = client.post("/workspaces/acme/settings", data=given, headers=bearer())
    assert answer.status_code == 422
    limits = "SELECT minimum_balance::text, low_balance_threshold::text FROM taximeter.workspaces WHERE workspace_id = 'acme'"
    assert conn.execute(limits).fetchone() == ("-0.120000000000", "0.000000000000")


def run(database_url: str, redis_url: str, *arguments: str) -> Any:
    """A command against this database."""
    addresses = {
        "TAXIMETER_DATABASE_URL": database_url,
        "TAXIMETER_BROKER_URL": redis_url,
        "TAXIMETER_REDIS_URL": redis_url,
    }
    done = taximeter(*arguments, **addresses)
    assert "Traceback" not in done.stderr
    return done


def test_row_41_row_42_and_row_49_on_the_command_line(database_url: str, redis_url: str, conn):
    def refused(word: str, *arguments: str, code: int = 2) -> None:
        done = run(database_url, redis_url, *arguments)
        assert done.returncode == code
        assert word in done.stderr

    refused("zero_amount", "credit", "acme", "0", "--id", "new")
    refused("bad_number", "credit", "acme", "NaN", "--id", "new")
    refused("negative_amount", "credit", "acme", "-5", "--id", "new")
    refused("too_precise", "credit", "acme", "0.0000000000001", "--id", "new")
    refused("id_conflict", "credit", "acme", "26", "--id", "acme-payment", code=1)
    refused("NaN", "workspace", "set", "acme", "--minimum-balance", "NaN")
    refused("above", "workspace", "set", "acme", "--minimum-balance", "1", "--low-balance", "0.5")
    assert conn.execute("SELECT sum(payment_count), sum(payment_total) FROM taximeter.workspaces").fetchone() == (2, 50)


def test_row_50_overlapping_and_back_dated_prices_name_both_versions(database_url: str, redis_url: str):
    def prices(*arguments: str) -> Any:
        return run(database_url, redis_url, "prices", "set", "--tool", "scan", "--unit", "pages", *arguments)

    assert prices("--price", "1", "--from", "2020-01-01T00:00:00Z", "--until", "2020-06-01T00:00:00Z").returncode == 0
    overlap = prices("--price", "2", "--from", "2020-03-01T00:00:00Z", "--until", "2020-09-01T00:00:00Z", "--backdated")
    assert overlap.returncode == 1
    assert "Overlap" in overlap.stderr
    assert prices("--price", "3", "--from", "2021-01-01T00:00:00Z").returncode == 0
    backdated = prices("--price", "4", "--from", "2022-01-01T00:00:00Z")
    assert backdated.returncode == 1
    assert "--backdated" in backdated.stderr
    for told, versions in ((overlap, ("1 per 1", "2 per 1")), (backdated, ("3 per 1", "4 per 1"))):
        for version in versions:
            assert version in told.stderr, told.stderr
    assert prices("--price", "4", "--from", "2022-01-01T00:00:00Z", "--backdated").returncode == 0
