"""Holds over HTTP: placed, extended and released by any gateway, and settled by the event that names them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2 as httpx
import pytest
import redis

from gateway.conftest import Gateway
from holds.conftest import open_holds, publish_prices, state, warm
from taximeter import limits, names
from taximeter_worker.flags.scripts import load_hold_script
from taximeter_worker.flags.writer import write_states

DAY_MS = 86_400_000


@pytest.fixture
def funded(redis_client: redis.Redis) -> redis.Redis:
    """A flag Redis on which the workspace acme has one dollar and twelve cents to hold."""
    warm(redis_client)
    load_hold_script(redis_client)
    write_states(redis_client, [state("acme", "1.00")])
    return redis_client


@pytest.fixture
def client(start_gateway: Callable[..., Gateway], new_key: Callable[..., str], funded: redis.Redis) -> httpx.Client:
    gateway = start_gateway(TAXIMETER_TOP_UP_URL="https://pay.example/{workspace}")
    with gateway.client(new_key(workspaces=("acme", "x" * 128))) as made:
        yield made


def test_a_hold_is_placed_extended_and_released(client: httpx.Client, funded: redis.Redis):
    answer = client.post("/v1/holds", json={"workspace": "acme", "max_cost": "0.05"})
    assert answer.status_code == 201, answer.text
    told = answer.json()
    assert (told["workspace_id"], told["held"], told["available"], told["granted"]) == ("acme", "0.05", "1.07", True)
    assert told["expires_in_seconds"] == 60
    assert open_holds(funded) == {told["id"]: 50_000}
    extended = client.post(f"/v1/holds/{told['id']}/extend", json={"max_cost": "0.12", "ttl": 30})
    assert extended.status_code == 200, extended.text
    assert (extended.json()["held"], extended.json()["available"]) == ("0.12", "1")
    assert open_holds(funded) == {told["id"]: 120_000}
    for _ in range(2):
        assert client.delete(f"/v1/holds/{told['id']}").status_code == 204
    assert open_holds(funded) == {}


def test_what_is_not_affordable_is_answered_by_402(client: httpx.Client, funded: redis.Redis):
    placed = client.post("/v1/holds", json={"workspace": "acme", "max_cost": "0.12"}).json()
    for answer in (
        client.post("/v1/holds", json={"workspace": "acme", "max_cost": "1.000001"}),
        client.post(f"/v1/holds/{placed['id']}/extend", json={"max_cost": "1.120001"}),
    ):
        assert answer.status_code == 402, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert (problem["code"], problem["workspace"], problem["available"]) == ("insufficient_credit", "acme", "1")
        assert (problem["workspace_status"], problem["top_up_url"]) == ("sufficient", "https://pay.example/acme")
    assert open_holds(funded) == {placed["id"]: 120_000}


def test_it_is_priced_capped_tried_and_repeated(client: httpx.Client, funded: redis.Redis):
    publish_prices(funded, input_tokens="1", output_tokens="100")
    asked = {"workspace": "acme", "tool": "chat", "provider": "p", "model": "m"}
    most = {"input_tokens": 20, "output_tokens": 1_000}
    for _ in range(2):
        priced = client.post("/v1/holds", json={**asked, "quantities": most, "key": "job-1"}).json()
        assert (priced["id"], priced["held"], priced["output_tokens"]) == ("acme~job-1", "0.10002", 1_000)
    tried = client.post("/v1/holds", json={"workspace": "acme", "max_cost": "2", "dry_run": True})
    assert (tried.status_code, tried.json()["granted"], tried.json()["id"]) == (200, False, None)
    capped = client.post(
        "/v1/holds", json={**asked, "quantities": {**most, "output_tokens": 99_999}, "on_short": "cap"}
    )
    assert (capped.json()["held"], capped.json()["output_tokens"]) == ("1.01998", 10_199)
    unpriced = client.post("/v1/holds", json={**asked, "quantities": {"pages": 1}})
    assert (unpriced.status_code, unpriced.json()["code"]) == (422, "price_missing")


def test_the_event_that_names_it_keeps_it_until_it_is_booked(
    client: httpx.Client, funded: redis.Redis, event: Callable[..., dict[str, Any]], arrived: Callable[..., Any]
):
    hold = client.post("/v1/holds", json={"workspace": "acme", "max_cost": "0.05", "ttl": 5}).json()["id"]
    other = client.post("/v1/holds", json={"workspace": "acme", "max_cost": "0.05"}).json()["id"]
    answer = client.post(
        "/v1/events",
        json=event(hold=hold),
        headers={"content-type": names.CONTENT_TYPE_EVENT},
    )
    assert answer.status_code == 202, answer.text
    assert [one["data"]["hold"] for one in arrived()] == [hold]
    now_ms = funded.time()[0] * 1000
    assert funded.zscore(names.holds_due_key("acme"), hold) > now_ms + 6 * DAY_MS
    assert client.delete(f"/v1/holds/{hold}").status_code == 204
    assert open_holds(funded) == {hold: 50_000, other: 50_000}, "its booking settles it, and nothing else"


def test_a_key_holds_for_its_own_workspaces_and_tools_alone(
    start_gateway: Callable[..., Gateway], new_key: Callable[..., str], funded: redis.Redis
):
    gateway = start_gateway()
    with gateway.client(new_key(workspaces=("beta",), tools=("chat",))) as stranger:
        asked = {"workspace": "acme", "max_cost": "0.01"}
        assert stranger.post("/v1/holds", json=asked).status_code == 404
        assert stranger.post("/v1/holds/acme~1/extend", json={"max_cost": "0.01"}).status_code == 404
        assert stranger.delete("/v1/holds/acme~1").status_code == 404
        assert stranger.post("/v1/holds", json={**asked, "workspace": "beta", "tool": "other"}).status_code == 404
        assert stranger.delete("/v1/holds/nothing").status_code == 404
    assert httpx.post(f"{gateway.url}/v1/holds", json=asked).status_code == 401
    assert open_holds(funded) == {}


def test_a_workspace_too_long_for_an_id_is_named_beside_it(client: httpx.Client, funded: redis.Redis):
    workspace = "x" * limits.WORKSPACE_ID_MAX
    hold = client.post("/v1/holds", json={"workspace": workspace, "max_cost": "0.05"}).json()["id"]
    assert client.delete(f"/v1/holds/{hold}").status_code == 404
    extended = client.post(f"/v1/holds/{hold}/extend", json={"max_cost": "0.06", "workspace": workspace})
    assert extended.json()["held"] == "0.06"
    assert client.delete(f"/v1/holds/{hold}", params={"workspace": workspace}).status_code == 204
    assert open_holds(funded, workspace) == {}


def test_while_holds_wait_it_says_for_how_long(client: httpx.Client, funded: redis.Redis):
    warm(funded, holds_from=(funded.time()[0] + 500) * 1000)
    answer = client.post("/v1/holds", json={"workspace": "acme", "max_cost": "0.05"})
    assert answer.status_code == 503
    assert 400 < int(answer.headers["retry-after"]) <= 500


def test_what_makes_no_sense_is_said(client: httpx.Client):
    for body in (
        {"workspace": "acme"},
        {"workspace": "acme", "max_cost": "x"},
        {"workspace": "acme", "max_cost": 0.5},
        {"workspace": "acme", "max_cost": "1", "quantities": {"pages": 1}},
        {"workspace": "acme", "max_cost": "1", "ttl": 0},
        {"workspace": "acme", "max_cost": "1", "on_short": "maybe"},
        {"max_cost": "1"},
        [],
    ):
        answer = client.post("/v1/holds", json=body)
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), body
