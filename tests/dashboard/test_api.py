"""The JSON API is the contract's: exact strings, signed cursors, problems."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from dashboard_factory import bearer, make_payment, make_settings, make_usage

BASE = "/api/v1/workspaces/acme"


def test_summary_adds_up_to_the_last_digit(client, book):
    book(make_payment(amount="25"), make_usage(cost="0.0000305"), make_usage(cost="12.158302769501"))
    body = client.get(f"{BASE}/summary", headers=bearer()).json()
    assert body["balance"] == "12.841666730499"
    assert Decimal(body["payment_total"]) - Decimal(body["usage_cost"]) == Decimal(body["balance"])
    assert (body["status"], body["enabled"], body["usage_count"]) == ("sufficient", True, 2)
    assert Decimal(body["remaining"]) == Decimal(body["balance"]) + Decimal("0.12")


@pytest.mark.parametrize(
    ("cost", "status", "enabled"),
    [
        ("0", "sufficient", True),
        ("0.000000000001", "low", True),
        ("0.12", "low", True),
        ("0.120000000001", "insufficient", False),
    ],
)
def test_status_at_the_boundaries(client, book, cost: str, status: str, enabled: bool):
    book(make_usage(cost=cost))
    assert client.get(f"{BASE}/summary", headers=bearer()).json()["status"] == status
    assert client.get(f"{BASE}/enabled", headers=bearer()).json() == {
        "workspace_id": "acme",
        "enabled": enabled,
        "status": status,
    }


def test_a_workspace_that_was_never_seen_is_new_to_its_owner(client):
    body = client.get(f"{BASE}/summary", headers=bearer()).json()
    assert (body["balance"], body["status"], body["usage_count"]) == ("0", "sufficient", 0)
    assert client.get(f"{BASE}/usages", headers=bearer()).json() == {"items": [], "next": None, "total": 0}


@pytest.mark.parametrize("sort", ["newest", "oldest"])
@pytest.mark.parametrize("count", [1, 20, 47])
def test_pages_have_no_gap_and_no_repeat(client, book, sort: str, count: int):
    book(*(make_usage() for _ in range(count)))
    seen, cursor = [], ""
    while True:
        page = client.get(f"{BASE}/usages?sort={sort}{cursor}", headers=bearer()).json()
        seen += [item["seq"] for item in page["items"]]
        assert page["total"] == count
        if page["next"] is None:
            break
        assert len(page["items"]) == 20
        cursor = f"&cursor={page['next']}"
        if sort == "newest":
            book(make_usage())  # arrivals do not shift what follows
            count += 1
    expected = list(range(1, len(seen) + 1))
    assert seen == (expected if sort == "oldest" else expected[::-1])


def test_details_hold_the_contents_byte_exact_and_quantities_exact(client, book):
    payload = rb'{"input":"\ud800\u0000<b>","output":{"a":1e5},"metadata":{"n":0.10}}'
    quantities = {"seconds": Decimal("999999999999999.123456"), "requests": 10**15}
    book(make_usage(event_id="a/b c?d", quantities=quantities, payload=payload))
    answer = client.get(f"{BASE}/usages/a%2Fb%20c%3Fd", headers=bearer())
    assert payload in answer.content
    assert b"999999999999999.123456" in answer.content
    assert answer.json()["cost"] == "0.0000305"
    assert client.get(f"{BASE}/usages/other", headers=bearer()).status_code == 404


def test_every_usage_is_found_by_its_event_id(client, book, conn):
    from taximeter_db.ledger import booking
    from taximeter_db.queries import usages

    for size in (1, 7, 300, 2):
        booking.book(conn, [make_usage(event_id=f"id-{size}-{n}") for n in range(size)])
    assert [usages.find(conn, "acme", f"id-{size}-{n}").event_id for size in (1, 7, 300, 2) for n in (0, size - 1)] == [
        f"id-{size}-{n}" for size in (1, 7, 300, 2) for n in (0, size - 1)
    ]
    assert usages.find(conn, "other", "id-7-0") is None


def test_payments(client, book):
    book(make_payment(amount="25"), make_payment(amount="-5", kind="adjustment", transaction=None, note=None))
    items = client.get(f"{BASE}/payments", headers=bearer()).json()["items"]
    assert [(item["amount"], item["kind"], item["balance_after"]) for item in items] == [
        ("-5", "adjustment", "20"),
        ("25", "top_up", "25"),
    ]
    assert items[1]["transaction"] == {"provider": "stripe", "reference": "pi_3"}


@pytest.mark.parametrize("query", ["limit=1e9", "limit=0", "limit=101", "limit=-1", "sort=drop", "limit=x"])
def test_bad_parameters_are_422(client, query: str):
    answer = client.get(f"{BASE}/usages?{query}", headers=bearer())
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"].startswith(query.partition("=")[0])


def test_a_tampered_cursor_is_400(client, book):
    book(*(make_usage() for _ in range(21)))
    cursor = client.get(f"{BASE}/usages", headers=bearer()).json()["next"]
    other = "A" if cursor[0] != "A" else "B"
    for bad in (other + cursor[1:], "x", "é", "1", cursor[:-1]):
        assert client.get(f"{BASE}/usages", params={"cursor": bad}, headers=bearer()).status_code == 400
    assert client.get(f"{BASE}/payments", params={"cursor": cursor}, headers=bearer()).status_code == 400
    oldest = {"cursor": cursor, "sort": "oldest"}
    assert client.get(f"{BASE}/usages", params=oldest, headers=bearer()).status_code == 400


def test_openapi_names_the_contract(client):
    document = client.get("/openapi.json").json()
    base = "/api/v1/workspaces/{workspace_id}"
    assert {f"{base}/{name}" for name in ("summary", "usages", "payments", "enabled", "usages/{event_id}")} <= set(
        document["paths"]
    )
    json.dumps(document)
    assert "ProblemDocument" in document["components"]["schemas"]


def test_no_database_is_503(client):
    from starlette.testclient import TestClient

    from taximeter_dashboard.app import create_app

    settings = make_settings("postgresql://nobody@127.0.0.1:9/none")
    app = create_app(settings)
    with TestClient(app, raise_server_exceptions=False) as broken:
        answer = broken.get(f"{BASE}/summary", headers=bearer())
    assert answer.status_code == 503
    assert answer.json()["title"] == "Not available"
