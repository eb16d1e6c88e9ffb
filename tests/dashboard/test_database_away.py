"""The page while its database does not answer: 503 and its own end of waiting, never a page that hangs."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
from starlette.testclient import TestClient

from dashboard_factory import bearer, make_settings, make_usage
from proxy import Proxy
from servers.databases import make_database, migrated_template
from servers.pgbouncer import pgbouncer
from taximeter_cli.embedded.logins import part_url
from taximeter_cli.embedded.process import wait_until
from taximeter_dashboard import database
from taximeter_dashboard.app import create_app
from taximeter_dashboard.auth.viewers import EVERY_WORKSPACE, OPERATOR, OWNER, Keys, Viewer
from taximeter_dashboard.errors import UnavailableError
from taximeter_db import connect
from taximeter_db.ledger import booking

URL = "/api/v1/workspaces/acme/summary"
AWAY = "The ledger cannot be reached at the moment. Nothing is lost; try again."


@pytest.fixture
def served(monkeypatch) -> Iterator:
    """`served(url)`: a page on the database at an address; its waits end soon."""
    monkeypatch.setattr(database, "COMMIT_SECONDS", 1.0)
    monkeypatch.setattr(database, "CHECK_SECONDS", 1.0)
    made = []

    def serve(url: str) -> TestClient:
        app = create_app(make_settings(url))
        client = TestClient(app, base_url="http://dash.example", raise_server_exceptions=False, follow_redirects=False)
        client.headers["sec-fetch-site"] = "same-origin"
        made.append(app)
        return client

    yield serve
    for app in made:
        app.state.app_context.close()


@pytest.fixture
def frozen(database_url: str) -> Iterator[tuple[str, Proxy]]:
    """The database's address through a proxy that can freeze it."""
    with connect.booking_connection(database_url) as conn:
        booking.book(conn, [make_usage()])
    parts = urlsplit(database_url)
    with Proxy(parts.hostname, parts.port) as proxy:
        yield proxy.url(database_url), proxy


def test_a_server_that_freezes_between_two_requests_is_503(served, frozen):
    url, proxy = frozen
    client = served(url)
    assert client.get(URL, headers=bearer()).status_code == 200
    proxy.stall()
    answer = client.get(URL, headers=bearer())
    assert (answer.status_code, answer.json()["detail"]) == (503, AWAY)
    proxy.resume()
    assert wait_until(lambda: client.get(URL, headers=bearer()).status_code == 200, 60)


def test_a_server_that_freezes_within_a_request_is_503(served, frozen):
    url, proxy = frozen
    client = served(url)

    def read_from_a_frozen_server() -> None:
        with client.app.state.app_context.database("acme", seconds=1.0) as conn:
            proxy.stall(replies_only=True)
            conn.execute("SELECT 1")

    with pytest.raises(UnavailableError):
        read_from_a_frozen_server()
    proxy.resume()
    assert wait_until(lambda: client.get(URL, headers=bearer()).status_code == 200, 60)


def test_a_commit_that_waits_for_a_standby_is_503_and_keeps_no_process_of_the_server(served, own_postgres):
    server = own_postgres()
    name = make_database(server, migrated_template(server))
    url = server.url(name)
    with connect.booking_connection(url) as conn:
        booking.book(conn, [make_usage()])
    client = served(url)
    owner = Keys(client.app.state.app_context.settings).session(Viewer("u", "U", {EVERY_WORKSPACE: OWNER}))
    assert client.get(URL, headers=bearer()).status_code == 200
    with psycopg.connect(server.admin_url(), autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'gone'")
        admin.execute("SELECT pg_reload_conf()")

        def waiting() -> int:
            (count,) = admin.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").fetchone()
            return count

        assert wait_until(lambda: admin.execute("SHOW synchronous_standby_names").fetchone() == ("gone",), 30)
        assert client.get(URL, headers=bearer()).status_code == 200, "what only reads waits for nobody"
        looked = client.get(URL, headers=bearer(OPERATOR, workspaces=[]))
        saved = client.post(
            "/workspaces/acme/settings", data={"low": "1"}, headers={"cookie": f"taximeter_session={owner}"}
        )
        assert (looked.status_code, saved.status_code) == (503, 503)
        assert "did not confirm this in time" in looked.json()["detail"]
        assert "did not confirm this in time" in saved.text
        assert wait_until(lambda: waiting() == 0, 30)
        admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
        admin.execute("SELECT pg_reload_conf()")
        assert wait_until(lambda: admin.execute("SHOW synchronous_standby_names").fetchone() == ("",), 30)
    assert client.get(URL, headers=bearer(OPERATOR, workspaces=[])).status_code == 200


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_the_page_works_behind_pgbouncer(served, database_url, mode: str):
    with connect.booking_connection(database_url) as conn:
        booking.book(conn, [make_usage()])
    logins = [database_url, part_url(database_url, "dashboard")]
    with pgbouncer(logins, mode=mode, pool_size=2) as pooler:
        client = served(pooler.url(database_url))
        for _ in range(3):
            answer = client.get(URL, headers=bearer(OPERATOR, workspaces=[]))
            assert (answer.status_code, answer.json()["usage_count"]) == (200, 1)
            assert client.get("/api/v1/workspaces/acme/usages?tool=chat", headers=bearer()).status_code == 200
            assert client.get("/api/v1/workspaces/acme/export", headers=bearer()).status_code == 200
