"""Every answer of the adapters' fixtures through the providers' own libraries: whole, streamed, cut off anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from provider_server import FIXTURES, Provider, blocks
from taximeter import quantities
from taximeter.testing import MemoryMeter

pytestmark = pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")

TEXT = [{"role": "user", "content": "hi"}]
CALLS: dict[str, Callable[[Any, str], Any]] = {
    "chat": lambda client, model: client.chat.completions.create(model=model, messages=TEXT),
    "chat.stream": lambda client, model: client.chat.completions.create(model=model, messages=TEXT, stream=True),
    "responses": lambda client, model: client.responses.create(model=model, input="hi"),
    "responses.stream": lambda client, model: client.responses.create(model=model, input="hi", stream=True),
    "embeddings": lambda client, model: client.embeddings.create(model=model, input="hi"),
    "images": lambda client, model: client.images.generate(model=model, prompt="a cat"),
    "images.stream": lambda client, model: client.images.generate(model=model, prompt="a cat", stream=True),
    "audio.transcription": lambda client, model: client.audio.transcriptions.create(model=model, file=b"RIFF"),
    "audio.transcription.stream": lambda client, model: client.audio.transcriptions.create(
        model=model, file=b"RIFF", stream=True
    ),
    "audio.speech": lambda client, model: client.audio.speech.create(model=model, voice="alloy", input="a" * 1234),
    "audio.speech.stream": lambda client, model: client.audio.speech.create(
        model=model, voice="alloy", input="hi", stream_format="sse"
    ),
    "messages": lambda client, model: client.messages.create(model=model, max_tokens=9, messages=TEXT),
    "messages.stream": lambda client, model: client.messages.create(
        model=model, max_tokens=9, messages=TEXT, stream=True
    ),
}
LIBRARIES = {"anthropic": anthropic}
LIBRARIES |= dict.fromkeys(("openai", "azure", "deepseek", "openrouter", "xai"), openai)


def call_of(fixture: dict[str, Any]) -> str:
    return fixture["shape"].partition(".")[2]


SPOKEN = [name for name, it in FIXTURES.items() if it["shape"].partition(".")[0] in LIBRARIES and call_of(it) in CALLS]
STREAMED = [name for name in SPOKEN if "events" in FIXTURES[name] and call_of(FIXTURES[name]) != "audio.speech.stream"]


def test_most_fixtures_are_covered() -> None:
    assert len(SPOKEN) >= 36


def client_for(fixture: dict[str, Any], remote: Provider, meter: MemoryMeter, *, is_async: bool) -> Any:
    library = LIBRARIES[fixture["shape"].partition(".")[0]]
    name = "Anthropic" if library is anthropic else "OpenAI"
    kind, web = (f"Async{name}", library.DefaultAsyncHttpxClient) if is_async else (name, library.DefaultHttpxClient)
    client = getattr(library, kind)(base_url=remote.url, api_key="key", max_retries=0, http_client=web(verify=False))
    return meter.wrap(client, provider=fixture["provider"])


def consume(client: Any, fixture: dict[str, Any]) -> None:
    answer = CALLS[call_of(fixture)](client, fixture["model"])
    if hasattr(answer, "__stream__"):
        for _ in answer:
            pass


async def consume_async(client: Any, fixture: dict[str, Any]) -> None:
    answer = await CALLS[call_of(fixture)](client, fixture["model"])
    if hasattr(answer, "__stream__"):
        async for _ in answer:
            pass


@contextmanager
def session(client: Any, *, is_async: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """What makes a fixture's call and consumes its answer."""
    if not is_async:
        with client:
            yield lambda fixture: consume(client, fixture)
        return
    with asyncio.Runner() as runner:
        yield lambda fixture: runner.run(consume_async(client, fixture), context=copy_context())
        runner.run(client.close())


def recorded(meter: MemoryMeter) -> list[tuple[str | None, dict[str, Any]]]:
    return [(usage["data"].get("model"), usage["data"]["quantities"]) for usage in meter.usages]


def expected(fixture: dict[str, Any], answer: object) -> list[tuple[str | None, dict[str, Any]]]:
    asked = {"input": "a" * 1234} if call_of(fixture) == "audio.speech" else None
    reading = quantities.read(
        fixture["shape"], answer, model=fixture["model"], provider=fixture["provider"], request=asked
    )
    return [
        (part.model, {unit: float(n) for unit, n in (part.pools or {"requests": 1}).items()}) for part in reading.parts
    ]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("name", SPOKEN)
def test_an_answer_is_recorded_with_the_pools_that_it_reports(
    name: str, is_async: bool, remote: Provider, meter: MemoryMeter
) -> None:
    fixture = FIXTURES[name]
    remote.answers(fixture)
    client = client_for(fixture, remote, meter, is_async=is_async)
    with session(client, is_async=is_async) as call, meter.attribution("acme", tool="chat"):
        call(fixture)
    assert recorded(meter) == expected(fixture, fixture.get("events", fixture.get("response", {})))
    for usage in meter.usages:
        assert usage["subject"] == "acme"
        assert usage["data"]["provider"] == fixture["provider"]
    parts = [part for part in fixture["expected"]["parts"] if part["pools"]]
    assert len(meter.usages) == max(len(parts), 1)


def pieces_of(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


@pytest.mark.parametrize("size", [1, 97, 1 << 20])
@pytest.mark.parametrize("name", STREAMED)
def test_a_stream_is_read_in_whatever_pieces_it_comes(
    name: str, size: int, remote: Provider, meter: MemoryMeter
) -> None:
    fixture = FIXTURES[name]
    remote.streams(pieces_of(b"".join(blocks(fixture)), size))
    client = client_for(fixture, remote, meter, is_async=False)
    with session(client, is_async=False) as call, meter.attribution("acme", tool="chat"):
        call(fixture)
    assert recorded(meter) == expected(fixture, fixture["events"])


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("name", STREAMED)
def test_a_stream_that_dies_anywhere_is_recorded_once_with_what_it_had_said(
    name: str, is_async: bool, remote: Provider, meter: MemoryMeter
) -> None:
    fixture = FIXTURES[name]
    sent = blocks(fixture)
    cuts = {sum(map(len, sent[:number])) for number in range(len(sent) + 1)}
    body = b"".join(sent)
    cuts |= set(range(0, len(body), max(len(body) // 8, 1)))
    client = client_for(fixture, remote, meter, is_async=is_async)
    with session(client, is_async=is_async) as call, meter.attribution("acme", tool="chat"):
        for cut in sorted(cuts):
            meter.clear()
            remote.streams(pieces_of(body[:cut], 113), breaks_off=True)
            with suppress(httpx2.HTTPError, openai.APIError, anthropic.APIError):
                call(fixture)
            arrived = sum(1 for number in range(1, len(sent) + 1) if sum(map(len, sent[:number])) <= cut)
            told = fixture["events"][:arrived]
            assert recorded(meter) == expected(fixture, told), f"cut after {cut} of {len(body)} bytes"
            ended = quantities.read(fixture["shape"], told, model=fixture["model"], provider=fixture["provider"])
            if "stream_incomplete" in ended.flags:
                assert "stream_incomplete" in meter.usages[0]["data"]["metadata"]["flags"]


@pytest.mark.parametrize("name", STREAMED)
def test_a_consumer_that_stops_anywhere_is_recorded_once(name: str, remote: Provider, meter: MemoryMeter) -> None:
    fixture = FIXTURES[name]
    remote.answers(fixture)
    with client_for(fixture, remote, meter, is_async=False) as client:
        for taken in range(len(fixture["events"])):
            meter.clear()
            with meter.attribution("acme", tool="chat"), CALLS[call_of(fixture)](client, fixture["model"]) as stream:
                for _, _ in zip(range(taken), stream, strict=False):
                    pass
            told = until_usage(fixture, taken)
            assert recorded(meter) == expected(fixture, told)
            if len(told) < len(fixture["events"]) - 1:
                assert "stream_incomplete" in meter.usages[0]["data"]["metadata"]["flags"]


def until_usage(fixture: dict[str, Any], taken: int) -> list[dict[str, Any]]:
    """What is read by a consumer of the first events: the end of a chat is shown after its usage."""
    events: list[dict[str, Any]] = fixture["events"]
    choices = [choice for event in events[:taken] for choice in event.get("choices", ())]
    is_ended = call_of(fixture) == "chat.stream" and any(choice.get("finish_reason") for choice in choices)
    is_told = any(event.get("usage") for event in events[:taken])
    return events if is_ended and not is_told else events[:taken]
