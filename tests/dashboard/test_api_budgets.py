"""Budgets by the JSON API: set, listed and removed by owners and by service tokens that may write, and by nobody else."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from dashboard_factory import bearer, make_payment, make_usage
from taximeter_db import access, service_tokens
from taximeter_db.ledger import booking

URL = "/api/v1/workspaces/acme/budgets"
TERMS = {
    "limit": "20.5",
    "period": "day",
    "zone": "Europe/Berlin",
    "tag": "team=search",
    "user": "u-17",
    "thresholds": [80, 100],
}


@pytest.fixture
def robot(conn) -> Callable[..., dict[str, str]]:
    def make(*workspaces: str, read_only: bool = False) -> dict[str, str]:
        token = service_tokens.make(conn, "robot", workspaces=workspaces, read_only=read_only, by="the tests")
        return {"authorization": f"Bearer {token}"}

    return make


@pytest.fixture(autouse=True)
def known(book) -> None:
    book(make_usage(cost="0.25"), make_payment())
    book(make_usage("other"))


def names(client, headers) -> list[str]:
    return [item["name"] for item in client.get(URL, headers=headers).json()["items"]]


def test_a_token_that_may_write_sets_changes_lists_and_removes(client, conn, robot):
    mine = robot("acme")
    answer = client.put(f"{URL}/search team", json=TERMS, headers=mine)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert {key: body[key] for key in TERMS} == TERMS
    assert (body["name"], body["soft"], body["spent"], body["state"]) == ("search team", False, "0", "within")
    changed = client.put(f"{URL}/search team", json={"limit": "1", "period": "total", "soft": True}, headers=mine)
    assert (changed.json()["period"], changed.json()["soft"], changed.json()["user"]) == ("total", True, None)
    assert (changed.json()["spent"], changed.json()["usages"]) == ("0.25", 1)  # counted from the log
    assert names(client, mine) == ["search team"]
    removed = client.delete(f"{URL}/search team", headers=mine)
    assert (removed.status_code, removed.content) == (204, b"")
    assert client.delete(f"{URL}/search team", headers=mine).status_code == 404
    log = [(one.changed_by, one.field) for one in access.changes(conn, "acme")][:3]
    assert log == [("robot (service token) (token:robot)", "budget search team")] * 3


def test_a_hard_budget_set_by_the_api_is_in_the_flag(client, conn, robot):
    answer = client.put(f"{URL}/all", json={"limit": "0.25", "period": "total"}, headers=robot("acme"))
    assert answer.json()["state"] == "exceeded"
    (state,) = booking.read_states(conn, ["acme"])
    assert [budget["name"] for budget in json.loads(state.budgets)] == ["all"]
    assert ("acme",) in conn.execute("SELECT workspace_id FROM taximeter.stale_flags").fetchall()


def test_an_owner_does_it_with_a_token_of_their_own(client):
    answer = client.put(f"{URL}/a/b", json={"limit": "1", "period": "hours:3"}, headers=bearer())
    assert answer.status_code == 200, answer.text
    assert names(client, bearer()) == ["a/b"]
    assert client.delete(f"{URL}/a%2Fb", headers=bearer()).status_code == 204


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_nobody_else_does(client, robot, method):
    terms = {"limit": "1", "period": "day"}
    assert client.put(f"{URL}/all", json=terms, headers=bearer()).status_code == 200
    body = {"json": terms} if method == "PUT" else {}
    reader = client.request(method, f"{URL}/all", headers=robot("acme", read_only=True), **body)
    assert (reader.status_code, reader.json()["detail"]) == (403, "Only the owner can change this.")
    theirs = client.request(method, f"{URL}/all", headers=robot("other"), **body)
    assert theirs.status_code == 404
    assert client.request(method, f"{URL}/all", **body).status_code in {401, 403}
    assert names(client, bearer()) == ["all"]


def test_a_write_of_another_site_is_refused(client):
    headers = {**bearer(), "sec-fetch-site": "cross-site"}
    assert client.put(f"{URL}/all", json={"limit": "1", "period": "day"}, headers=headers).status_code == 403
    assert names(client, bearer()) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"limit": "-1"}, "limit"),
        ({"limit": 1}, "limit"),
        ({"limit": "1e3"}, "limit"),
        ({"period": "year"}, "period"),
        ({"period": "hours:745"}, "period"),
        ({"zone": "Mars"}, "time zone"),
        ({"tag": "team"}, "tag"),
        ({"tag": "team=\u0000"}, "tag"),
        ({"user": " u"}, "user"),
        ({"thresholds": []}, "thresholds"),
        ({"thresholds": [50, 50]}, "thresholds"),
        ({"thresholds": [0]}, "thresholds"),
        ({"soft": "yes"}, "soft"),
        ({"sotf": True}, "sotf"),
    ],
)
def test_terms_that_make_no_sense_are_refused_with_a_sentence(client, change, says):
    answer = client.put(f"{URL}/all", json={"limit": "1", "period": "day", **change}, headers=bearer())
    assert answer.status_code == 422
    assert says in answer.json()["detail"]
    assert names(client, bearer()) == []
