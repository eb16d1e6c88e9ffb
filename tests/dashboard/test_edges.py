"""Input at the edges: zero times of other languages, zones that do not exist, workspaces never seen, tokens without a role."""

from __future__ import annotations

import datetime as dt
import logging

import pytest

from dashboard_factory import bearer, make_payment, make_usage
from taximeter_dashboard.auth.viewers import OPERATOR

BASE = "/api/v1/workspaces/acme"
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
FIRST = (dt.datetime.min.replace(tzinfo=dt.UTC) - EPOCH) // dt.timedelta(microseconds=1)
LAST = (dt.datetime.max.replace(tzinfo=dt.UTC) - EPOCH) // dt.timedelta(microseconds=1)
PAGES = ("/workspaces/acme", "/workspaces/acme/usages/1", "/workspaces/acme/payments", "/workspaces/acme/payments/1")


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Europe/Riga", "Pacific/Kiritimati", "Asia/Kathmandu"])
@pytest.mark.parametrize(("occurred_at", "year"), [(FIRST, "0001-01-01"), (LAST, "9999-12-31")])
def test_the_first_and_the_last_time_that_there_are_read_in_every_zone(owner, book, zone, occurred_at, year):
    book(make_usage(occurred_at=occurred_at), make_payment(occurred_at=occurred_at))
    owner.cookies.set("taximeter_zone", zone)
    for path in PAGES:
        for part in ({}, {"x-taximeter-part": "details"}):
            answer = owner.get(path, headers=part)
            assert answer.status_code == 200, path
    if occurred_at == FIRST:  # a time before the booking is shown beside it
        assert f'datetime="{year}T' in owner.get(PAGES[1]).text
    assert owner.get(f"{BASE}/usages", headers=bearer()).json()["items"][0]["occurred_at"].startswith(year)
    assert owner.get(f"{BASE}/export", headers=bearer()).text.count(f",{year}T") == 1


@pytest.mark.parametrize(
    "path", ["usages?zone={}", "usages?since=2026-11-01&zone={}", "analysis?zone={}", "export?zone={}"]
)
def test_a_zone_that_does_not_exist_is_422_whether_or_not_a_day_needs_it(client, book, path):
    book(make_usage())
    for zone in ("Mars/X", "europe%2Friga2", "..%2F..%2Fetc"):
        answer = client.get(f"{BASE}/{path.format(zone)}", headers=bearer())
        assert answer.status_code == 422, zone
        assert answer.json()["detail"].startswith("zone: ")
    assert client.get(f"{BASE}/{path.format('Europe/Riga')}", headers=bearer()).status_code == 200


def test_a_zone_that_does_not_exist_cannot_be_chosen(owner):
    assert owner.get("/zone?to=Mars%2FX").status_code == 422
    assert owner.get("/zone?to=Europe%2FRiga").status_code == 303


def test_the_flag_of_a_workspace_never_seen_is_that_of_a_new_one_and_polls_are_not_looks(client, conn, book):
    operator = bearer(OPERATOR, workspaces=[])
    expected = {"workspace_id": "new", "enabled": True, "status": "sufficient"}
    for _ in range(3):
        answer = client.get("/api/v1/workspaces/new/enabled", headers=operator)
        assert (answer.status_code, answer.json()) == (200, expected)
    assert client.get("/api/v1/workspaces/new/enabled", headers=bearer(workspaces=["new"])).json() == expected
    assert client.get("/api/v1/workspaces/new/enabled", headers=bearer()).status_code == 404
    assert client.get("/api/v1/workspaces/n%20w/enabled", headers=operator).status_code == 404
    assert client.get("/api/v1/workspaces/new/summary", headers=operator).status_code == 404
    book(make_usage(cost="1"))
    assert client.get(f"{BASE}/enabled", headers=operator).json()["enabled"] is False
    looks = conn.execute("SELECT path FROM taximeter.operator_looks").fetchall()
    assert looks == [], "a poll of the flag is not a look"
    assert client.get(f"{BASE}/summary", headers=operator).status_code == 200
    assert conn.execute("SELECT count(*) FROM taximeter.operator_looks").fetchone() == (1,)


@pytest.mark.parametrize(
    ("claims", "named"),
    [
        ({"role": "root"}, "claim role "),
        ({"role": None}, "claim role "),
        ({"workspaces": {}, "role": None, "sub": "x" * 300}, "claim sub "),
        ({"workspaces": 7}, "claim workspaces "),
    ],
)
def test_a_valid_token_that_names_no_role_says_which_claim_failed(client, caplog, claims, named):
    with caplog.at_level(logging.WARNING, "taximeter_dashboard"):
        for _ in range(3):
            answer = client.get(f"{BASE}/summary", headers=bearer(**claims))
    assert answer.status_code == 401
    assert named in answer.json()["detail"]
    assert "expired" not in answer.json()["detail"]
    told = [record.getMessage() for record in caplog.records if "token" in record.getMessage()]
    assert len(told) == 1, "each reason is told once a minute"
    assert named in told[0]
    assert "root" not in told[0]


@pytest.mark.parametrize(
    ("claims", "named"),
    [({"exp": 1}, "expired"), ({"aud": "billing"}, "aud"), ({"iss": None}, "iss")],
)
def test_a_token_that_does_not_hold_is_told_in_the_log_alone(client, caplog, claims, named):
    with caplog.at_level(logging.WARNING, "taximeter_dashboard"):
        answer = client.get(f"{BASE}/summary", headers=bearer(**claims))
    assert answer.status_code == 401
    assert "may have expired" in answer.json()["detail"]
    (told,) = [record.getMessage() for record in caplog.records if "token" in record.getMessage()]
    assert named in told
    assert "billing" not in told
