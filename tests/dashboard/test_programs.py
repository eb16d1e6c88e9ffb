"""What programs expect of the API: to follow a log, a list of workspaces, ETags, HEAD, a rate limit, a health address."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from dashboard_factory import bearer, make_payment, make_settings, make_usage
from taximeter_dashboard.api.middleware import CALLERS_MAX, Rates
from taximeter_dashboard.app import create_app
from taximeter_dashboard.auth.viewers import OPERATOR, STAFF
from taximeter_db import access

BASE = "/api/v1/workspaces/acme"


@pytest.mark.parametrize(
    ("log", "query"), [("usages", ""), ("usages", "&tool=chat"), ("usages", "&least=0.001"), ("payments", "")]
)
def test_a_program_follows_a_log_from_the_last_number_it_has_seen(client, book, log, query):
    """Each event once, in order, whatever is booked between two questions, with pages of any size."""
    seen: list[int] = []

    def read_on() -> None:
        while True:
            after = seen[-1] if seen else 0
            answer = client.get(f"{BASE}/{log}?after={after}&limit=3{query}", headers=bearer())
            assert answer.status_code == 200
            items = answer.json()["items"]
            assert all(item["seq"] > after for item in items), "never one that was read before"
            seen.extend(item["seq"] for item in items)
            if not items:
                assert answer.json()["next"] is None
                return

    for count in (0, 7, 1, 4):
        book(*(make_usage(cost="0.01") if log == "usages" else make_payment() for _ in range(count)))
        read_on()
    assert seen == list(range(1, 13))


def test_the_cursor_of_what_follows_goes_on(client, book):
    book(*(make_usage() for _ in range(9)))
    first = client.get(f"{BASE}/usages?after=2&limit=4&sort=newest", headers=bearer()).json()
    assert [item["seq"] for item in first["items"]] == [3, 4, 5, 6]
    rest = client.get(f"{BASE}/usages?sort=oldest&limit=4&cursor={first['next']}", headers=bearer()).json()
    assert [item["seq"] for item in rest["items"]] == [7, 8, 9]
    both = client.get(f"{BASE}/usages?after=2&cursor={first['next']}", headers=bearer())
    assert (both.status_code, both.json()["detail"][:6]) == (422, "after:")


def test_the_list_of_workspaces_is_that_of_whoever_asks(client, book, conn):
    names = [f"w-{number}" for number in range(5)]
    book(*(make_payment(name) for name in names), make_usage("w-1", cost="26"))

    def listed(headers: dict[str, str], query: str = "") -> list[str]:
        return [
            item["workspace_id"] for item in client.get(f"/api/v1/workspaces{query}", headers=headers).json()["items"]
        ]

    operator = bearer(OPERATOR, workspaces=[])
    assert listed(operator) == names
    assert listed(operator, "?limit=2&after=w-1") == ["w-2", "w-3"]
    assert conn.execute("SELECT count(*) FROM taximeter.operator_looks").fetchone() == (2,)
    assert listed(bearer(workspaces=["w-1", "w-3", "never-seen"])) == ["w-1", "w-3"]
    assert listed(bearer(STAFF, workspaces=["w-1", "w-2"])) == []
    access.allow(conn, "w-2", "u-1", "owner")
    assert listed(bearer(STAFF, workspaces=["w-1", "w-2"])) == ["w-2"]
    (item,) = client.get("/api/v1/workspaces", headers=bearer(workspaces=["w-1"])).json()["items"]
    assert item == {"workspace_id": "w-1", "status": "insufficient", "enabled": False, "balance": "-1"}
    assert client.get("/api/v1/workspaces").status_code == 401


def test_an_answer_that_has_not_changed_is_304(client, book):
    book(make_usage())
    first = client.get(f"{BASE}/summary", headers=bearer())
    tag = first.headers["etag"]
    again = client.get(f"{BASE}/summary", headers=bearer() | {"if-none-match": f'"other", {tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert first.headers["cache-control"] == "private, no-cache"
    book(make_usage())
    changed = client.get(f"{BASE}/summary", headers=bearer() | {"if-none-match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag
    assert client.get(f"{BASE}/summary", headers={"if-none-match": tag}).status_code == 401


@pytest.mark.parametrize("path", [f"{BASE}/summary", f"{BASE}/usages", "/openapi.json", "/health"])
def test_head_answers_like_get_without_the_body(client, book, path):
    book(*(make_usage() for _ in range(25)))
    plain = bearer() | {"accept-encoding": "identity"}
    got, head = client.get(path, headers=plain), client.head(path, headers=plain)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers["content-length"] == got.headers["content-length"] == str(len(got.content))
    assert head.headers.get("etag") == got.headers.get("etag")
    assert client.head(f"{BASE}/export", headers=plain).status_code == 405


def test_a_caller_beyond_the_rate_is_429_and_others_are_not(database_url):
    app = create_app(make_settings(database_url, api_requests_per_minute=3))
    client = TestClient(app, base_url="http://dash.example")
    caller = bearer()  # a caller is known by its token, and each token is of its second
    answers = [client.get(f"{BASE}/enabled", headers=caller) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["ratelimit-remaining"] for answer in answers[:3]] == ["2", "1", "0"]
    assert 1 <= int(answers[3].headers["retry-after"]) <= 20
    assert answers[3].headers["content-type"] == "application/problem+json"
    assert client.get(f"{BASE}/enabled", headers=bearer(sub="u-2")).status_code == 200
    assert client.get("/health").status_code == 200
    app.state.app_context.close()


def test_the_rates_of_callers_are_bounded_in_memory():
    rates = Rates(1)
    assert rates.take(b"first") == (0, 0)
    for number in range(CALLERS_MAX):
        rates.take(str(number).encode())
    assert len(rates._buckets) == CALLERS_MAX
    assert rates.take(b"first") == (0, 0)


def test_health_needs_no_token_and_says_when_the_database_is_away(client, database_url):
    answer = client.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    app = create_app(make_settings("postgresql://nobody@127.0.0.1:1/none"))
    away = TestClient(app, base_url="http://dash.example", raise_server_exceptions=False).get("/health")
    assert (away.status_code, away.headers["content-type"]) == (503, "application/problem+json")
    app.state.app_context.close()
