"""Streams of the libraries that speak formats of their own, cut off anywhere: recorded once, with what had been told.

The same for what openai's and anthropic's libraries speak: tests/producers/integrations/test_wrapped_fixtures.py.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, suppress
from contextvars import copy_context
from typing import Any, NamedTuple

import aiohttp
import boto3
import cohere
import httpx
import httpx2
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from google import genai
from mistralai.client import Mistral
from urllib3.exceptions import HTTPError

from adapter_fixtures import FIXTURES
from servers.aws_events import frame
from servers.provider import Replay, Reply, serving
from taximeter import quantities
from taximeter.testing import MemoryMeter

pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")  # how google-genai uses aiohttp

BREAKS = (httpx.HTTPError, httpx2.HTTPError, BotoCoreError, HTTPError, aiohttp.ClientError)
"""What the libraries raise where a connection breaks off."""
SAID: Any = [{"role": "user", "content": "Hi"}]
SERVER_SENT = "text/event-stream"
FRAMED = "application/vnd.amazon.eventstream"


def server_sent(event: Any) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def converse_frame(event: Any) -> bytes:
    ((kind, payload),) = event.items()
    return frame(kind, payload)


def invoke_frame(event: Any) -> bytes:
    return frame("chunk", {"bytes": b64encode(json.dumps(event).encode()).decode()})


def bedrock(address: str, meter: MemoryMeter) -> Any:
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    config = Config(retries={"max_attempts": 1})
    return meter.wrap(boto3.client("bedrock-runtime", endpoint_url=address, config=config, **keys))


def google(address: str, meter: MemoryMeter) -> Any:
    return meter.wrap(genai.Client(api_key="k", http_options={"base_url": address}))


class Spoken(NamedTuple):
    """How a fixture's stream is written, and how it is asked for."""

    written: Callable[[Any], bytes]
    content_type: str
    opened: Callable[[str, MemoryMeter], Any]
    asked: Callable[[Any], Iterator[Any]]
    asked_async: Callable[[Any], AsyncIterator[Any]] | None = None


async def google_stream(client: Any) -> AsyncIterator[Any]:
    async for chunk in await client.aio.models.generate_content_stream(model="gemini-2.5-pro", contents="Hi"):
        yield chunk


async def mistral_stream(client: Any) -> AsyncIterator[Any]:
    async with await client.chat.stream_async(model="mistral-large-2512", messages=SAID) as stream:
        async for event in stream:
            yield event


def mistral_events(client: Any) -> Iterator[Any]:
    with client.chat.stream(model="mistral-large-2512", messages=SAID) as stream:
        yield from stream


def bedrock_events(answer: Any) -> Iterator[Any]:
    try:
        yield from answer
    finally:
        answer.close()


SPOKEN: dict[str, Spoken] = {
    "gem-stream-cumulative": Spoken(
        server_sent,
        SERVER_SENT,
        google,
        lambda client: client.models.generate_content_stream(model="gemini-2.5-pro", contents="Hi"),
        google_stream,
    ),
    "mis-stream": Spoken(
        lambda event: server_sent(event["data"]),
        SERVER_SENT,
        lambda address, meter: meter.wrap(Mistral(api_key="k", server_url=address)),
        mistral_events,
        mistral_stream,
    ),
    "coh-stream": Spoken(
        server_sent,
        SERVER_SENT,
        lambda address, meter: meter.wrap(cohere.ClientV2("k", base_url=address)),
        lambda client: client.chat_stream(model="command-r7b", messages=SAID),
    ),
    "coh-stream async": Spoken(
        server_sent,
        SERVER_SENT,
        lambda address, meter: meter.wrap(cohere.AsyncClientV2("k", base_url=address)),
        lambda client: iter(()),
        lambda client: client.chat_stream(model="command-r7b", messages=SAID),
    ),
    "bed-converse-stream": Spoken(
        converse_frame,
        FRAMED,
        bedrock,
        lambda client: bedrock_events(
            client.converse_stream(
                modelId="amazon.nova-pro-v1:0", messages=[{"role": "user", "content": [{"text": "Hi"}]}]
            )["stream"]
        ),
    ),
    "bedrock-ant-invoke-stream": Spoken(
        invoke_frame,
        FRAMED,
        bedrock,
        lambda client: bedrock_events(
            client.invoke_model_with_response_stream(modelId="anthropic.claude-sonnet-4-5-20250929-v1:0", body=b"{}")[
                "body"
            ]
        ),
    ),
}
BEFORE: dict[str, list[Any]] = {
    "coh-stream": [
        {"type": "message-start", "id": "x1", "delta": {"message": {"role": "assistant"}}},
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Hi"}}}},
    ],
    "mis-stream": [
        {
            "data": {
                **{
                    name: value
                    for name, value in FIXTURES["mis-stream"]["events"][0]["data"].items()
                    if name != "usage"
                },
                "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}],
            }
        }
    ],
}
"""What such a stream begins with; the fixtures hold the events that tell of usage."""
WAYS = [
    (name, is_async)
    for name, spoken in SPOKEN.items()
    for is_async in (False, True)
    if (spoken.asked_async is not None and is_async) or (not is_async and not name.endswith("async"))
]


def events_of(name: str) -> list[Any]:
    name = name.removesuffix(" async")
    return [*BEFORE.get(name, ()), *FIXTURES[name]["events"]]


@pytest.fixture
def meter() -> MemoryMeter:
    return MemoryMeter()


@pytest.fixture
def remote() -> Iterator[Replay]:
    with serving(Replay()) as replay:
        yield replay


def consume(name: str, address: str, meter: MemoryMeter, *, is_async: bool, taken: int | None = None) -> None:
    """Read a stream, or its first events only, by a client of its own."""
    spoken = SPOKEN[name]
    client = spoken.opened(address, meter)

    async def read() -> None:
        assert spoken.asked_async is not None
        async with getattr(client, "aio", client):
            stream = spoken.asked_async(client)
            number = 0
            async for _ in stream:
                number += 1
                if number == taken:
                    break
            await stream.aclose()  # type: ignore[attr-defined]

    if is_async:
        with asyncio.Runner() as runner:
            runner.run(read(), context=copy_context())
        return
    with closing(client) if spoken.content_type == FRAMED else client:
        stream = spoken.asked(client)
        for number, _ in enumerate(stream, 1):
            if number == taken:
                break
        stream.close()  # type: ignore[attr-defined]


def reading(name: str, told: list[Any]) -> quantities.Reading:
    fixture = FIXTURES[name.removesuffix(" async")]
    return quantities.read(fixture["shape"], told, model=fixture["model"], provider=fixture["provider"])


def expected(name: str, told: list[Any]) -> list[dict[str, Any]]:
    parts = reading(name, told).parts
    return [{unit: float(n) for unit, n in (part.pools or {"requests": 1}).items()} for part in parts]


@pytest.mark.parametrize(
    ("name", "is_async"), WAYS, ids=[f"{name} {'async' * is_async}".strip() for name, is_async in WAYS]
)
def test_a_stream_that_dies_anywhere_is_recorded_once_with_what_it_had_told(
    name: str, is_async: bool, remote: Replay, meter: MemoryMeter
) -> None:
    spoken, events = SPOKEN[name], events_of(name)
    blocks = [spoken.written(event) for event in events]
    ends = [sum(map(len, blocks[: number + 1])) for number in range(len(blocks))]
    cuts = {0, *ends} | {
        end - len(block) * part // 3 for end, block in zip(ends, blocks, strict=True) for part in (1, 2)
    }
    body = b"".join(blocks)
    for cut in sorted(cuts):
        meter.clear()
        pieces = tuple(body[start : min(start + 37, cut)] for start in range(0, cut, 37))
        remote.queue(Reply(pieces, spoken.content_type, ending="dying"))
        with meter.attribution("acme", tool="chat"), suppress(*BREAKS):  # each library has its own error
            consume(name, remote.address, meter, is_async=is_async)
        told = events[: sum(end <= cut for end in ends)]
        found = [usage["data"]["quantities"] for usage in meter.usages]
        if not told:  # where a call fails before its first event, nothing was consumed
            assert found in ([], [{"requests": 1}]), f"cut after {cut} bytes"
            continue
        assert found == expected(name, told), f"cut after {cut} bytes"
        if "stream_incomplete" in reading(name, told).flags:
            assert "stream_incomplete" in meter.usages[0]["data"]["metadata"]["flags"]


@pytest.mark.parametrize(
    ("name", "is_async"), WAYS, ids=[f"{name} {'async' * is_async}".strip() for name, is_async in WAYS]
)
def test_a_consumer_that_stops_anywhere_is_recorded_once(
    name: str, is_async: bool, remote: Replay, meter: MemoryMeter
) -> None:
    spoken, events = SPOKEN[name], events_of(name)
    for taken in range(1, len(events) + 1):
        meter.clear()
        remote.queue(Reply(tuple(spoken.written(event) for event in events), spoken.content_type))
        with meter.attribution("acme", tool="chat"):
            consume(name, remote.address, meter, is_async=is_async, taken=taken)
        # Usage follows after Bedrock's messageStop, and is read then.
        told = events if any("messageStop" in event for event in events[:taken]) else events[:taken]
        assert [usage["data"]["quantities"] for usage in meter.usages] == expected(name, told), f"after {taken} events"


def test_every_stream_of_the_fixtures_is_cut_somewhere() -> None:
    streams = {name for name, fixture in FIXTURES.items() if "events" in fixture}
    elsewhere = {"openai", "anthropic", "azure", "openrouter"}
    left = {name for name in streams if FIXTURES[name]["shape"].partition(".")[0] not in elsewhere}
    assert left <= SPOKEN.keys()
