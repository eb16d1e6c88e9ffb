"""What the gateway takes and refuses, over real HTTP, with real servers behind it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import httpx2 as httpx
import pytest

import decode_events
from taximeter import names
from taximeter_db import producer_keys
from taximeter_gateway.keys import LOOK_SECONDS
from waiting import eventually

EVENT = {"content-type": names.CONTENT_TYPE_EVENT}
BATCH = {"content-type": names.CONTENT_TYPE_BATCH}


def problem(answer: httpx.Response, status: int) -> dict:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    return body


def test_modes_of_cloudevents_arrive_alike(start_gateway, new_key, event, payment, arrived):
    with start_gateway().client(new_key(kinds=("usage", "payment"))) as client:
        answer = client.post("/v1/events", content=json.dumps(event("s-1", input="\ud800 hé\0")), headers=EVENT)
        assert (answer.status_code, answer.json()) == (202, {"accepted": 1, "rejected": []})
        assert arrived() == [event("s-1", input="\ud800 hé\0")]
        batch = [event(f"b-{n}", f"w-{n}") for n in range(1000)]
        answer = client.post(
            "/v1/events",
            content=gzip.compress(json.dumps(batch).encode()),
            headers={**BATCH, "content-encoding": "gzip"},
        )
        assert (answer.status_code, answer.json()["accepted"]) == (202, 1000)
        assert arrived() == batch
        whole = event("h-1", "a:b")
        attributes = {f"ce-{name}": value for name, value in whole.items() if name != "data"}
        answer = client.post("/v1/events", json=whole["data"], headers={**attributes, "ce-id": "h%2D1"})
        assert answer.status_code == 202, answer.text
        assert arrived() == [whole]
        answer = client.post("/v1/events", content=json.dumps([payment(), event("m", output="\udfff")]), headers=BATCH)
        assert answer.json() == {"accepted": 2, "rejected": []}
        assert arrived(names.PAYMENT_QUEUE) == [payment()]
        assert arrived() == [event("m", output="\udfff")]
        assert client.post("/v1/events", content="[]", headers=BATCH).json() == {"accepted": 0, "rejected": []}


def test_bad_events_are_named_and_the_good_ones_arrive(start_gateway, new_key, event, payment, arrived):
    key = new_key(workspaces=("acme", "beta"), tools=("chat",))
    batch = [
        event("good-1"),
        event("theirs", "other-tenant"),
        event("no-tool", tool=" "),
        event("their-tool", tool="secret-tool"),
        payment("pay"),
        event("negative", quantities={"requests": -1}),
        event("empty", quantities={}),
        {**event("late"), "time": None},
        {**event(), "id": ""},
        {**event("version"), "specversion": "0.3"},
        {**event("array"), "data": []},
        7,
        event("good-2", "beta", quantities={"seconds": 1.25}),
    ]
    expected = [
        (1, "theirs", "workspace_not_allowed"),
        (2, "no-tool", "tool_required"),
        (3, "their-tool", "tool_not_allowed"),
        (4, "pay", "type_not_allowed"),
        (5, "negative", "negative_quantity"),
        (6, "empty", "quantity_required"),
        (7, "late", "bad_time"),
        (8, "", "id_required"),
        (9, "version", "unsupported_version"),
        (10, "array", "not_an_object"),
        (11, None, "not_an_object"),
    ]
    with start_gateway().client(key) as client:
        answer = client.post("/v1/events", content=json.dumps(batch), headers=BATCH)
        assert answer.status_code == 202
        assert answer.json()["accepted"] == 2
        assert [(one["index"], one.get("id"), one["code"]) for one in answer.json()["rejected"]] == expected
        assert all(one["detail"] for one in answer.json()["rejected"])
        assert [one["id"] for one in arrived()] == ["good-1", "good-2"]
        for index, event_id, code in expected:
            if index == 11:
                continue
            status = 403 if code.endswith("_not_allowed") else 422
            told = problem(client.post("/v1/events", content=json.dumps(batch[index]), headers=EVENT), status)
            assert (told["code"], told.get("id", "")) == (code, event_id)
        told = problem(client.post("/v1/events", content=json.dumps(batch[1:4]), headers=BATCH), 422)
        assert [one["id"] for one in told["rejected"]] == ["theirs", "no-tool", "their-tool"]
        assert arrived() == []


def test_what_cannot_be_read_is_a_problem_and_nothing_arrives(start_gateway, new_key, event, arrived):
    gateway = start_gateway(TAXIMETER_GATEWAY_BODY_BYTES_MAX="500000", TAXIMETER_EVENT_BYTES_MAX="100000")
    whole = json.dumps(event())
    attributes = {f"ce-{name}": value for name, value in event().items() if name != "data"}
    bomb = gzip.compress(b" " * 600_000)
    with gateway.client(new_key()) as client:
        for status, content, headers in [
            (415, whole, {"content-type": "text/plain"}),
            (415, whole, {"content-type": "application/json"}),
            (415, "<a/>", {**attributes, "content-type": "application/xml"}),
            (415, whole, {**EVENT, "content-encoding": "br"}),
            (400, "[", BATCH),
            (400, f"[{whole},]", BATCH),
            (400, f"[{whole}] x", BATCH),
            (400, f'["\\ud800",{whole},]', BATCH),
            (400, f'["\\ud800",{whole}] x', BATCH),
            (400, whole, BATCH),
            (400, b"[\xff]", BATCH),
            (400, whole, {**EVENT, "content-encoding": "gzip"}),
            (400, gzip.compress(whole.encode())[:-9], {**EVENT, "content-encoding": "gzip"}),
            (400, '1,"subject":"other"', attributes),
            (400, '{"tool":"chat"},"subject":"other","x":{}', attributes),
            (413, bomb, {**EVENT, "content-encoding": "gzip"}),
            (413, json.dumps([event(f"e{n}") for n in range(1001)]), BATCH),
            (422, json.dumps(event(input="x" * 100_000)), EVENT),
            (422, "{", EVENT),
            (422, "", EVENT),
        ]:
            problem(client.post("/v1/events", content=content, headers=headers), status)
        problem(client.get("/v1/events"), 405)
        problem(client.get("/v1/nothing"), 404)
    assert arrived() == []


def test_a_hundred_megabytes_are_refused_unread(start_gateway, new_key, event, arrived):
    gateway = start_gateway()

    def body():
        for _ in range(100):
            yield b" " * 1_048_576

    with gateway.client(new_key()) as client:
        for headers in ({**EVENT, "content-length": str(100 * 1_048_576)}, EVENT):
            problem(client.post("/v1/events", content=body(), headers=headers), 413)
        assert client.post("/v1/events", content=json.dumps(event()), headers=EVENT).status_code == 202
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak < 250_000, "it kept what it refused"
    assert len(arrived()) == 1


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer tmk_wrong", "Basic dG1rOg==", "tmk_wrong"])
def test_without_a_key_that_counts_nothing_is_read(start_gateway, event, arrived, authorization):
    headers = {**EVENT} if authorization is None else {**EVENT, "authorization": authorization}
    answer = httpx.post(f"{start_gateway().url}/v1/events", content=json.dumps(event()), headers=headers)
    problem(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert arrived() == []


def test_a_new_key_counts_at_once_and_a_revoked_one_no_more_within_a_second(start_gateway, new_key, conn, event):
    gateway = start_gateway()
    with gateway.client(new_key("mine")) as client:
        assert client.post("/v1/events", content=json.dumps(event()), headers=EVENT).status_code == 202
        producer_keys.revoke(conn, "mine")
        eventually(lambda: client.post("/v1/events", content=json.dumps(event()), headers=EVENT).status_code == 401)
    assert LOOK_SECONDS < 1.0


def test_beyond_the_rate_of_its_key_a_producer_is_told_to_wait(start_gateway, new_key, event):
    gateway = start_gateway()
    batch = json.dumps([event(f"e{n}") for n in range(40)])
    with gateway.client(new_key(events_per_second=10)) as client, gateway.client(new_key()) as other:
        assert client.post("/v1/events", content=batch, headers=BATCH).status_code == 202
        answer = client.post("/v1/events", content=batch, headers=BATCH)
        problem(answer, 429)
        assert 1 <= int(answer.headers["retry-after"]) <= 4
        assert other.post("/v1/events", content=batch, headers=BATCH).status_code == 202


@pytest.mark.parametrize("order", [("acme", "other-tenant"), ("other-tenant", "acme")])
def test_a_workspace_named_twice_is_nobodys(start_gateway, new_key, event, arrived, messages, order):
    """No key reaches beyond its workspaces by one name for the gateway and one for the worker."""
    first, second = order
    twice = json.dumps(event(workspace=first))[:-1] + f',"subject":"{second}"}}'
    with start_gateway().client(new_key(workspaces=("acme",))) as client:
        client.post("/v1/events", content=twice, headers=EVENT)
    for body in messages():
        decoded = decode_events.decode(body)
        assert decoded.usages == []
        assert [one.reason for one in decoded.rejected] == ["duplicate_key"]
        assert [one.workspace_id for one in decoded.rejected] == [None]
