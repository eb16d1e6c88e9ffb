"""The API is what its OpenAPI document says, whatever it is asked: schemathesis finds nothing."""

from __future__ import annotations

import itertools
import os
import string
import zoneinfo
from collections import Counter
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from dashboard_factory import bearer, make_payment, make_settings, make_token, make_usage
from servers.databases import drop_database, make_database, migrated_template
from taximeter_dashboard.app import create_app
from taximeter_db import connect, service_tokens
from taximeter_db.ledger import booking

NAMES = [
    "summary",
    "enabled",
    "usages",
    "usages/{event_id}",
    "payments",
    "status-changes",
    "analysis",
    "export",
    "budgets",
]
QUICK = settings(
    max_examples=int(os.environ.get("TAXIMETER_TEST_EXAMPLES", "12")),
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
SOAK = settings(max_examples=1_000, deadline=None, suppress_health_check=list(HealthCheck))


# What no schema can tell: a cursor of this very list, the name of a zone, and texts that people can read.
schemathesis.openapi.format("cursor", st.just(""))
# No dots: a client takes /. and /.. out of an address.
TEXT = st.text(string.ascii_letters + string.digits + "-_:@", min_size=1, max_size=60)
schemathesis.openapi.format("budget-text", TEXT)
schemathesis.openapi.format("budget-tag", st.builds("team={}".format, TEXT))
schemathesis.openapi.format("time-zone", st.sampled_from(sorted(zoneinfo.available_timezones() - {"localtime"})))


@pytest.fixture(scope="module")
def served(postgres):
    """The application on a workspace that holds something of everything."""
    name = make_database(postgres, migrated_template(postgres))
    with connect.booking_connection(postgres.url(name)) as conn:
        booking.book(conn, [], [make_payment(amount="0.001")])
        booking.book(
            conn, [make_usage(event_id="0199c7f2-6d0e-7a55-8f3c-2f4f8f0c9a11", cost="0.1"), make_usage(model=None)]
        )
        booking.book(conn, [make_usage(cost="0.1") for _ in range(25)])
        booking.book(conn, [], [make_payment(amount="25", transaction=None, note=None)])
        token = service_tokens.make(conn, "robot", workspaces=["acme"], read_only=True, by="the tests")
    app = create_app(make_settings(postgres.url(name)))
    app.state.service_token = token
    yield app
    app.state.app_context.close()
    drop_database(postgres, name)


@pytest.fixture(scope="module")
def api(served) -> Any:
    async def without_lifespan(scope, receive, send):
        """Each request is a client of its own, whose end is not the application's."""
        if scope["type"] != "lifespan":
            await served(scope, receive, send)
            return
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})

    # Persons and programs by turns.
    tokens = itertools.cycle((make_token(), served.state.service_token))
    found = schemathesis.openapi.from_asgi("/openapi.json", without_lifespan)

    @found.auth()
    class Token:
        def get(self, _case, _context):
            return next(tokens)

        def set(self, case, token, _context):
            case.headers["Authorization"] = f"Bearer {token}"

    return found


def _try_all(api: Any, how: settings) -> None:
    """Requests of every kind that the document allows and forbids, to every operation; each answer is checked."""
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) >= len(NAMES)
    seen: Counter[int] = Counter()
    for operation in operations:

        @how
        @given(case=operation.as_strategy(GenerationMode.POSITIVE) | operation.as_strategy(GenerationMode.NEGATIVE))
        def try_one(case: Any) -> None:
            # No schema can say that the key of a tag goes with by=tag alone; test_labels.py holds that answer.
            query = case.query or {}
            loose = (query.get("by") == "tag") != bool(query.get("tag"))
            answer = case.call_and_validate(excluded_checks=[positive_data_acceptance] if loose else [])
            seen[answer.status_code] += 1

        try_one()
    assert {200, 404, 422} <= set(
        seen
    )  # what is drawn depends on the document: found, absent and refused were among it
    assert not [status for status in seen if status >= 500]


def test_nothing_is_found(api):
    _try_all(api, QUICK)


@pytest.mark.soak
def test_nothing_is_found_for_long(api):
    _try_all(api, SOAK)


def test_every_answer_has_an_example_and_every_problem_is_named(served):
    document = served.openapi()
    prefix = "/api/v1/workspaces/{workspace_id}/"
    assert {f"{prefix}{name}" for name in NAMES} <= set(document["paths"])
    without = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            denied = {"401", "503"} if path == "/api/v1/workspaces" else {"401", "403", "503"}
            assert denied <= set(operation["responses"]), path
            for status, answer in operation["responses"].items():
                for kind, content in answer.get("content", {}).items():
                    assert kind != "application/json" or status == "200", f"{path} {status}"
                    if "example" not in content and not _exemplified(document, content["schema"]):
                        without.append(f"{method} {path} {status}")
    assert without == []


def _exemplified(document: dict, schema: dict) -> bool:
    """Whether every leaf of a shape has an example."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "examples" in schema:
        return True
    if schema.get("type") == "array":
        return _exemplified(document, schema["items"])
    if "properties" in schema:
        return all(_exemplified(document, one) for one in schema["properties"].values())
    if "anyOf" in schema:
        return any(_exemplified(document, one) for one in schema["anyOf"])
    return False


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/api/v1/workspaces/acme", 404),
        ("DELETE", "/api/v1/workspaces/acme/summary", 405),
        ("POST", "/openapi.json", 405),
        ("GET", "/api/v1/workspaces/acme/usages?limit=0", 422),
        ("GET", "/api/v1/workspaces/acme/usages?least=7", 422),
        ("GET", "/api/v1/workspaces/acme/usages?since=yesterday", 422),
        ("GET", "/api/v1/workspaces/acme/usages?since=1763800000", 422),
        ("GET", "/api/v1/workspaces/acme/usages?until=2026-02-30", 422),
        ("GET", "/api/v1/workspaces/acme/usages?model=%00g", 400),
        ("GET", "/api/v1/workspaces/acme/usages?id=%C3%A9", 422),
        ("GET", "/api/v1/workspaces/acme/usages?tool=chat&zone=Mars", 422),
        ("GET", "/api/v1/workspaces/acme/analysis?zone=Mars", 422),
        ("GET", "/api/v1/workspaces/acme/usages?tool=chat&cursor=x", 400),
        ("GET", "/api/v1/workspaces/acme/status-changes?cursor=x", 400),
    ],
)
def test_every_error_is_a_problem(served, method: str, path: str, status: int):
    from starlette.testclient import TestClient

    client = TestClient(served)
    answer = client.request(method, path, headers=bearer())
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(answer.json()) == {"type", "title", "status", "detail"}
    assert status != 405 or answer.headers["allow"]
    client.close()


def test_our_own_failure_is_a_problem_that_tells_nothing(served, monkeypatch, caplog):
    from starlette.testclient import TestClient

    monkeypatch.setattr(type(served.state.app_context), "summary", lambda *_: 1 / 0)
    client = TestClient(served, raise_server_exceptions=False)
    answer = client.get("/api/v1/workspaces/acme/summary", headers=bearer())
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "division" not in answer.text
    assert "ZeroDivisionError" in caplog.text
    client.close()
