"""What is held and what is available stand beside the balance: on the page, in the API and in `taximeter workspace show`."""

from __future__ import annotations

import json
from collections.abc import Callable

import redis
from starlette.testclient import TestClient

from dashboard_factory import bearer, make_payment, make_settings
from instances import taximeter
from taximeter import Meter
from taximeter_cli.held import reader
from taximeter_dashboard.app import create_app
from taximeter_db import connect
from taximeter_db.ledger import booking
from taximeter_worker.flags.writer import write_states

ADDRESS = "http://dash.example"


def _pay(database_url: str, client: redis.Redis) -> None:
    with connect.booking_connection(database_url) as conn:
        outcome = booking.book(conn, [], [make_payment(amount="1")])
    write_states(client, list(outcome.states.values()))


def test_held_and_available_are_shown_apart_from_the_balance(
    fund: Callable[..., None], meter: Meter, redis_url: str, redis_client: redis.Redis, database_url: str
):
    _pay(database_url, redis_client)
    meter.hold("acme", max_cost="0.25")
    app = create_app(make_settings(database_url), held=reader(redis_url))
    with TestClient(app, base_url=ADDRESS) as client:
        body = client.get("/api/v1/workspaces/acme/summary", headers=bearer()).json()
        page = client.get("/workspaces/acme", headers=bearer()).text
    assert (body["balance"], body["held"], body["available"]) == ("1", "0.25", "0.87")
    assert "Held for running calls" in page
    shown = taximeter(
        *("workspace", "show", "acme", "--json"),
        TAXIMETER_DATABASE_URL=database_url,
        TAXIMETER_REDIS_URL=redis_url,
    )
    assert shown.returncode == 0, shown.stderr
    told = json.loads(shown.stdout)
    assert (told["balance"], told["held"], told["available"]) == ("1", "0.25", "0.87")


def test_without_redis_nothing_is_said_of_holds(database_url: str, redis_client: redis.Redis):
    _pay(database_url, redis_client)
    for held in (None, reader("redis://127.0.0.1:1/0")):
        with TestClient(create_app(make_settings(database_url), held=held), base_url=ADDRESS) as client:
            body = client.get("/api/v1/workspaces/acme/summary", headers=bearer()).json()
            assert "Held for" not in client.get("/workspaces/acme", headers=bearer()).text
        assert (body["balance"], body["held"], body["available"]) == ("1", None, None)
    shown = taximeter("workspace", "show", "acme", TAXIMETER_DATABASE_URL=database_url)
    assert shown.returncode == 0, shown.stderr
    assert "unknown: Redis cannot be asked" in shown.stdout
