"""`taximeter producers`, and what the gateway says of itself: metrics, settings, sentences."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx2 as httpx
import pytest

from instances import taximeter
from taximeter_cli.embedded.process import free_port
from taximeter_db import producer_keys
from taximeter_db.errors import NotFoundError, SettingsError
from taximeter_db.producer_keys import Scope
from taximeter_gateway.metrics import Metrics

DOCS = Path(__file__).parents[2] / "docs"


def test_a_key_is_shown_once_and_kept_as_a_hash(conn, database_url):
    environment = {
        "TAXIMETER_DATABASE_URL": database_url,
        "TAXIMETER_BROKER_URL": "redis://h/0",
        "TAXIMETER_REDIS_URL": "redis://h/0",
    }
    options = ("--workspace", "acme", "--workspace", "beta", "--tool", "chat", "--payments", "--rate", "50")
    made = taximeter("producers", "new", "mine", *options, "--json", **environment)
    assert made.returncode == 0, made.stderr
    told = json.loads(made.stdout)
    assert set(told) == {"name", "key"}
    assert told["name"] == "mine"
    listed = json.loads(taximeter("producers", "list", "--json", **environment).stdout)
    assert [
        (one["name"], one["workspaces"], one["tools"], one["kinds"], one["events_per_second"], one["revoked_at"])
        for one in listed
    ] == [("mine", ["acme", "beta"], ["chat"], ["usage", "payment"], 50, None)]
    rows = conn.execute("SELECT * FROM taximeter.producer_keys").fetchall()
    assert told["key"] not in repr(rows)
    assert list(producer_keys.valid(conn)) == [producer_keys.digest(told["key"])]
    assert taximeter("producers", "revoke", "mine", **environment).returncode == 0
    again = taximeter("producers", "revoke", "mine", **environment)
    assert (again.returncode, again.stdout) == (1, "")
    assert "There is no key named mine" in again.stderr
    assert producer_keys.valid(conn) == {}


def test_names_are_taken_until_they_are_revoked(conn):
    before = producer_keys.version(conn)
    first = producer_keys.create(conn, "a", Scope(), "me")
    with pytest.raises(SettingsError, match="already"):
        producer_keys.create(conn, "a", Scope(), "me")
    producer_keys.revoke(conn, "a")
    second = producer_keys.create(conn, "a", Scope(), "me")
    assert first != second
    assert producer_keys.version(conn) != before
    assert [one.revoked_at is None for one in producer_keys.listed(conn)] == [False, True]
    with pytest.raises(NotFoundError):
        producer_keys.revoke(conn, "b")


@pytest.mark.parametrize(
    ("name", "scope"),
    [
        ("", Scope()),
        (" ", Scope()),
        ("x" * 129, Scope()),
        ("a\nb", Scope()),
        ("a", Scope(workspaces=("no/slash",))),
        ("a", Scope(tools=(" ",))),
        ("a", Scope(tools=("x" * 129,))),
        ("a", Scope(events_per_second=0)),
    ],
)
def test_what_no_key_can_be_for_is_refused(conn, name, scope):
    with pytest.raises(SettingsError):
        producer_keys.create(conn, name, scope, "me")
    assert producer_keys.listed(conn) == []


def test_its_metrics_are_those_that_are_documented():
    families = {family.name: family.type for family in Metrics(lambda: 0, lambda: 0).registry.collect()}
    names = {f"{name}_total" if kind == "counter" else name: kind for name, kind in families.items()}
    table = re.findall(r"^\| `(taximeter_gateway_\w+)` \| (\w+) \|", (DOCS / "gateway.md").read_text(), re.MULTILINE)
    assert dict(table) == names


def test_its_metrics_are_served_and_count(start_gateway, new_key, event):
    port = free_port(None)
    gateway = start_gateway(TAXIMETER_GATEWAY_METRICS_PORT=str(port))
    with gateway.client(new_key()) as client:
        client.post(
            "/v1/events",
            content=json.dumps([event(), event("b", tool="")]),
            headers={"content-type": "application/cloudevents-batch+json"},
        )
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert 'taximeter_gateway_events_total{outcome="accepted"} 1.0' in text
    assert 'taximeter_gateway_events_total{outcome="refused"} 1.0' in text
    assert 'taximeter_gateway_requests_total{path="/v1/events",status="202"} 1.0' in text
    assert "taximeter_gateway_requests_waiting 0.0" in text


def test_a_taken_port_is_a_sentence(start_gateway, gateway_environment):
    gateway = start_gateway()
    variables = {name: value for name, value in gateway_environment.items() if name.startswith("TAXIMETER_")}
    done = taximeter("gateway", "--port", str(gateway.port), **variables)
    assert done.returncode == 1
    assert f"Port {gateway.port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_enabled_and_price_are_for_the_keys_own_workspaces(start_gateway, new_key, redis_client):
    from taximeter import names

    redis_client.set(names.FLAGS_READY, "1")
    redis_client.hset(
        names.flag_key("acme"), mapping={"enabled": "0", "status": "insufficient", "epoch": 1, "version": 1}
    )
    with start_gateway().client(new_key(workspaces=("acme", "new", "beta"), tools=("chat",))) as client:
        answer = client.get("/v1/workspaces/acme/enabled?user=u&tool=chat")
        assert answer.json() == {"workspace_id": "acme", "enabled": False, "status": "insufficient"}
        assert client.get("/v1/workspaces/new/enabled").json()["enabled"] is True
        used_up = '[{"name": "b", "limit": "1", "period": "day", "user": "u", "tag": ["team", "x"]}]'
        redis_client.hset(names.flag_key("beta"), mapping={"enabled": "1", "status": "low", "budgets": used_up})
        asked_for = "/v1/workspaces/beta/enabled?user=u&tag=team=x"
        assert client.get(asked_for).json() == {
            "workspace_id": "beta",
            "enabled": False,
            "status": "low",
            "budget": "b",
        }
        assert client.get("/v1/workspaces/beta/enabled?user=v&tag=team=x").json()["enabled"] is True
        theirs, absent = client.get("/v1/workspaces/other/enabled"), client.get("/v1/workspaces/no%20id/enabled")
        assert (theirs.status_code, theirs.content) == (404, absent.content)
        asked = {"workspace": "acme", "tool": "chat", "quantities": {"requests": 1}}
        assert client.post("/v1/price", json=asked).status_code == 503, "no worker has published a price book"
        assert client.post("/v1/price", json={**asked, "workspace": "other"}).status_code == 404
        assert client.post("/v1/price", json={**asked, "tool": "other"}).status_code == 404
        assert client.post("/v1/price", json={**asked, "quantities": 7}).status_code == 422
        assert client.post("/v1/price", content="{", headers={"content-type": "application/json"}).status_code == 400
        assert client.post("/v1/price", content="{}").status_code == 415
