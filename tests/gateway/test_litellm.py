"""What LiteLLM's generic API callback sends becomes usage events."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ADAPTERS = Path(__file__).parents[1] / "data" / "adapters"
FIXTURES = sorted(ADAPTERS.glob("lit-*.json"))


def payload(fixture: dict, call_id: str, **changes) -> dict:
    """A standard logging payload of the call that a fixture tells of."""
    return {
        "id": fixture["response"].get("id", call_id),
        "litellm_call_id": call_id,
        "call_type": "acompletion",
        "status": "success",
        "cache_hit": None,
        "custom_llm_provider": "bedrock",
        "model": fixture["model"],
        "startTime": 1795345199.5,
        "endTime": 1795345200.25,
        "end_user": "u-17",
        "metadata": {
            "user_api_key_team_id": "acme",
            "user_api_key_org_id": "org",
            "usage_object": fixture["response"]["usage"],
        },
        **changes,
    }


def folded(pools: dict[str, int]) -> dict[str, int]:
    """Pools with the reasoning among the output again, as some fixtures have it."""
    rest = {unit: amount for unit, amount in pools.items() if unit != "reasoning_tokens"}
    return rest | {"output_tokens": rest.get("output_tokens", 0) + pools.get("reasoning_tokens", 0)}


def test_payloads_become_the_pools_that_were_billed(start_gateway, new_key, arrived):
    fixtures = [json.loads(path.read_text()) for path in FIXTURES]
    payloads = [payload(fixture, f"call-{at}") for at, fixture in enumerate(fixtures)]
    failed, cached = payload(fixtures[0], "f", status="failure"), payload(fixtures[0], "c", cache_hit=True)
    with start_gateway().client(new_key(workspaces=("acme",))) as client:
        answer = client.post("/v1/litellm?tool=proxy", json=[*payloads, failed, cached])
        assert answer.status_code == 202, answer.text
        expected = [part["pools"] for fixture in fixtures for part in fixture["expected"]["parts"]]
        assert answer.json() == {"accepted": len(expected), "rejected": [], "skipped": 2}
        events = arrived()
        assert [folded(one["data"]["quantities"]) for one in events] == [folded(pools) for pools in expected]
        assert {one["subject"] for one in events} == {"acme"}
        assert {one["data"]["tool"] for one in events} == {"proxy"}
        assert {one["data"]["user"] for one in events} == {"u-17"}
        assert {one["time"] for one in events} == {"2026-11-22T11:00:00.250000Z"}
        assert len({one["id"] for one in events}) == len(events)
        lines = "\n".join(json.dumps(one) for one in payloads)
        assert client.post("/v1/litellm", content=lines).json()["accepted"] == len(expected)
        assert [one["id"] for one in arrived()] == [one["id"] for one in events], "sent again, it is the same events"


def test_what_is_no_call_of_this_key_is_named(start_gateway, new_key, arrived):
    fixture = json.loads(FIXTURES[-1].read_text())
    with start_gateway().client(new_key(workspaces=("acme",))) as client:
        good = payload(fixture, "good")
        bad = [
            (
                payload(fixture, "other", metadata={**good["metadata"], "user_api_key_team_id": "other"}),
                "workspace_not_allowed",
            ),
            (payload(fixture, "none", metadata={}, response={}), "bad_quantities"),
            ({**good, "litellm_call_id": None, "id": None}, "id_required"),
            (payload(fixture, "when", endTime="yesterday"), "bad_time"),
            ("text", "not_an_object"),
        ]
        answer = client.post("/v1/litellm", json=[good, *(one for one, _ in bad)])
        assert answer.status_code == 202
        assert [(one["index"], one["code"]) for one in answer.json()["rejected"]] == [
            (index, code) for index, (_, code) in enumerate(bad, start=1)
        ]
        assert {one["subject"] for one in arrived()} == {"acme"}
        assert client.post("/v1/litellm?workspace=organization", json=[good]).status_code == 403
        assert (
            client.post(
                "/v1/litellm",
                json=payload(fixture, "alone", metadata={"usage_object": good["metadata"]["usage_object"]}),
            ).status_code
            == 202
        )


@pytest.mark.parametrize("body", [b"{", b"[1", b'{"a":1}\n{', b"\xff"])
def test_what_cannot_be_read_is_a_problem(start_gateway, new_key, body):
    with start_gateway().client(new_key()) as client:
        answer = client.post("/v1/litellm", content=body)
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/problem+json"
