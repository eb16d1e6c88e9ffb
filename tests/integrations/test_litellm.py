"""LiteLLM's own functions with the callback, their HTTP answered by a local server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from adapter_fixtures import FIXTURES, pools
from servers.provider import Replay, as_events, as_json, serving

SCRIPT = Path(__file__).with_name("litellm_calls.py")
NAME = "oai-chat-cached"
MESSAGE = {"role": "assistant", "content": "Hi"}
ANSWER = {
    "object": "chat.completion",
    "created": 1,
    **FIXTURES[NAME]["response"],
    "choices": [{"index": 0, "finish_reason": "stop", "message": MESSAGE}],
}
CHUNK = {**ANSWER, "object": "chat.completion.chunk", "usage": None}
CHUNKS = [
    {**CHUNK, "choices": [{"index": 0, "delta": MESSAGE}]},
    {**CHUNK, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {**CHUNK, "choices": [], "usage": ANSWER["usage"]},
]
WHOLE = as_json(ANSWER)
STREAM = as_events(CHUNKS, end="data: [DONE]\n\n")
FAILURE = as_json({"error": {"message": "no"}}, status=400)
VECTOR = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.1]}],
    **FIXTURES["oai-embed-large-batch"]["response"],
}
RESPONSE = {
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "output": [],
    **FIXTURES["oai-resp-plain"]["response"],
}
ENDED = {"type": "response.completed", "sequence_number": 0, "response": RESPONSE}
LEFT = {"requests": 1}
NOT_ASKED = "stream_that_was_not_asked"
RECORDED: dict[str, dict[str, Any]] = {
    "completion": pools(NAME),
    "stream": pools(NAME),
    "stream_left": LEFT,
    "acompletion": pools(NAME),
    "astream": pools(NAME),
    "astream_left": LEFT,
    "astream_broken": LEFT,
    "aembedding": pools("oai-embed-large-batch"),
    "aresponses": pools("oai-resp-plain"),
    "aresponses_stream": pools("oai-resp-plain"),
    "router": pools(NAME),
    "chat": pools(NAME),
}
"""What each way is recorded with, once. `NOT_ASKED` has what LiteLLM counts itself; "chat" is the docs' example."""
REPLIES = [
    *(WHOLE, STREAM, as_events(CHUNKS[:2], end="data: [DONE]\n\n"), STREAM, FAILURE),
    *(WHOLE, STREAM, STREAM, as_events(CHUNKS[:1]).dying(), FAILURE, as_json(VECTOR)),
    *(as_json(RESPONSE), as_events([ENDED], named=True)),
    *(as_json({"error": {"message": "later"}}, status=500), WHOLE, WHOLE),
]


class Ran(NamedTuple):
    """What the script did."""

    events: list[dict[str, Any]]
    refused: list[str]
    asked: list[Any]

    def of(self, tool: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["tool"] == tool]


@pytest.fixture(scope="module")
def ran() -> Ran:
    """All ways, once."""
    settings = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "PYTHONWARNINGS": "ignore",
    }  # else it looks for prices on the net
    with serving(Replay()) as provider:
        provider.queue(*REPLIES)
        done = subprocess.run(
            [sys.executable, str(SCRIPT), provider.address, ",".join((*RECORDED, NOT_ASKED))],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    events = [{**event["data"], "workspace": event["subject"]} for event in said["usages"]]
    return Ran(events, said["refused"], provider.requests)


@pytest.mark.parametrize("way", RECORDED)
def test_a_call_is_recorded_once(way: str, ran: Ran) -> None:
    (event,) = ran.of(way)
    assert event["quantities"] == RECORDED[way]
    assert (event["workspace"], event["provider"], event["user"]) == ("acme", "openai", "u-17")
    assert event["model"].startswith(("gpt-4", "gpt-5", "text-embedding"))
    flags = event.get("metadata", {}).get("flags")
    assert flags == (["usage_missing", "stream_incomplete"] if RECORDED[way] is LEFT else None)


def test_a_stream_that_was_not_asked_says_who_counted(ran: Ran) -> None:
    (event,) = ran.of(NOT_ASKED)
    assert event["metadata"]["usage_source"].startswith("litellm")


def test_an_async_stream_is_asked_for_its_usage(ran: Ran) -> None:
    asked = [request.body.get("stream_options") for request in ran.asked if request.body.get("stream")]
    assert asked.count({"include_usage": True}) == 4  # one sync stream, and the three async ones of chat


def test_a_failed_call_consumes_nothing_and_a_refused_one_is_not_made(ran: Ran) -> None:
    assert ran.of("failed") + ran.of("afailed") == []
    assert ran.refused == ["NoAttributionError", *["AIDisabled"] * 3, *["NotMeteredError"] * 2]
    assert len(ran.asked) == len(REPLIES)
    assert {event["tool"] for event in ran.events} == {*RECORDED, NOT_ASKED}
