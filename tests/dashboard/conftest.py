"""A dashboard on a real database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from dashboard_factory import make_settings
from taximeter_dashboard.app import create_app
from taximeter_dashboard.auth.viewers import EVERY_WORKSPACE, OWNER, Keys, Viewer
from taximeter_dashboard.settings import Settings
from taximeter_db import connect
from taximeter_db.ledger import booking
from taximeter_db.ledger.events import Payment, Usage


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with connect.booking_connection(database_url) as connection:
        yield connection


@pytest.fixture
def book(conn) -> Callable[..., None]:
    """Book usages and payments, in the order given."""

    def book(*events: Usage | Payment) -> None:
        for event in events:
            if isinstance(event, Payment):
                booking.book(conn, [], [event])
            else:
                booking.book(conn, [event])

    return book


@pytest.fixture
def settings(database_url: str) -> Settings:
    return make_settings(database_url)


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    app = create_app(settings)
    with TestClient(app, base_url="http://dash.example", raise_server_exceptions=False, follow_redirects=False) as it:
        yield it


@pytest.fixture
def owner(client: TestClient, settings: Settings) -> TestClient:
    """A browser in which the embedded instance's owner is signed in."""
    viewer = Viewer("owner", "Owner", {EVERY_WORKSPACE: OWNER})
    client.cookies.set("taximeter_session", Keys(settings).session(viewer))
    client.headers["sec-fetch-site"] = "same-origin"
    return client
