"""A dashboard in which two workspaces have traffic, and those who try to look over the fence."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from dashboard_factory import make_payment, make_settings, make_usage
from servers.databases import drop_database, make_database, migrated_template
from taximeter_cli.receipts import Receipts
from taximeter_dashboard.app import create_app
from taximeter_dashboard.auth.viewers import OWNER, Keys, Viewer
from taximeter_dashboard.settings import Settings
from taximeter_db import access
from taximeter_db.connect import booking_connection
from taximeter_db.ledger import booking
from web_security.attack_surface import HOST, OURS, SECRET, THEIRS


@pytest.fixture(scope="module")
def database(postgres) -> Iterator[str]:
    name = make_database(postgres, migrated_template(postgres))
    yield postgres.url(name)
    drop_database(postgres, name)


@pytest.fixture(scope="module")
def conn(database: str) -> Iterator[psycopg.Connection[Any]]:
    """Ours has 30 usages and a payment, theirs as many and a secret in every text."""
    payload = b'{"input":"%b","output":"%b","metadata":{"%b":"%b"}}' % ((SECRET.encode(),) * 4)
    with booking_connection(database) as made:
        booking.book(made, [make_usage(OURS, "mine"), *(make_usage(OURS, f"mine-{n}") for n in range(29))])
        booking.book(made, [], [make_payment(OURS, "25", "my-payment")])
        secret = {"tool": SECRET, "provider": SECRET, "model": SECRET, "payload": payload}
        booking.book(made, [make_usage(THEIRS, f"{SECRET}-{n}", **secret) for n in range(30)])
        paid = {"note": SECRET, "transaction": {"provider": SECRET, "reference": SECRET}}
        booking.book(made, [], [make_payment(THEIRS, "4711.25", f"{SECRET}-payment", **paid)])
        access.allow(made, THEIRS, SECRET, "the owner")
        yield made


@pytest.fixture(scope="module")
def settings(database: str, conn) -> Settings:
    return make_settings(database, dashboard_minimum_from="-5")


@pytest.fixture(scope="module")
def app(settings: Settings) -> Iterator[Any]:
    made = create_app(settings, Receipts())
    yield made
    made.state.app_context.close()


@pytest.fixture
def client(app: Any) -> TestClient:
    """Nobody in particular."""
    return TestClient(app, base_url=HOST, raise_server_exceptions=False, follow_redirects=False)


@pytest.fixture
def browser(app: Any, settings: Settings) -> Callable[..., TestClient]:
    """Somebody's browser: ``browser({"acme": "owner"})``."""

    def sign_in(roles: dict[str, str] | None = None, name: str = "Ada", subject: str = "u-1") -> TestClient:
        client = TestClient(app, base_url=HOST, raise_server_exceptions=False, follow_redirects=False)
        client.cookies.set("taximeter_session", Keys(settings).session(Viewer(subject, name, roles or {OURS: OWNER})))
        client.headers["sec-fetch-site"] = "same-origin"
        return client

    return sign_in


@pytest.fixture(autouse=True)
def no_error_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """An attack that makes our own code fail has found something, whatever the answer says."""
    yield
    failed = [one.getMessage() for one in caplog.get_records("call") if one.levelno >= logging.ERROR]
    assert failed == []


@pytest.fixture
def secret_file() -> str:
    """A line of a file that no request may read."""
    return Path("/etc/passwd").read_text().splitlines()[0]
