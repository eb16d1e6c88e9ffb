"""Google's own SDK behind a meter, its HTTP answered by a local server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google import genai
from google.genai import types

from adapter_fixtures import FIXTURES, folded, named, pools
from servers.provider import as_events, as_json
from taximeter import AIDisabled, NoAttributionError, NotMeteredError

pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class:DeprecationWarning")  # how it uses aiohttp

ANSWERS = [name for name in named("gem-") if FIXTURES[name]["shape"] == "google.generate_content"]
EVENTS = FIXTURES["gem-stream-cumulative"]["events"]
WHOLE = {"input_tokens": 21, "output_tokens": 650, "reasoning_tokens": 900}


@pytest.fixture
def client(provider: Any, meter: Any) -> Any:
    return meter.wrap(
        genai.Client(
            api_key="k",
            http_options=types.HttpOptions(
                base_url=provider.address, retry_options=types.HttpRetryOptions(attempts=3, initial_delay=0.01)
            ),
        )
    )


def stream(client: Any, size: int | None, provider: Any) -> Any:
    provider.queue(as_events(EVENTS, size=size))
    return client.models.generate_content_stream(model="gemini-2.5-pro", contents="Hi")


def run(client: Any, work: Any) -> Any:
    """Run a coroutine, and close the client's connections in its loop."""

    async def closing() -> Any:
        async with client.aio:
            return await work

    return asyncio.run(closing())


async def ask(client: Any, is_async: bool, **arguments: Any) -> Any:
    if is_async:
        return await client.aio.models.generate_content(**arguments)
    return client.models.generate_content(**arguments)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_recorded(
    name: str, is_async: bool, client: Any, provider: Any, meter: Any, recorded: Any
) -> None:
    provider.queue(as_json(FIXTURES[name]["response"]))
    with meter.attribution("acme", tool="chat", user="u-17", tags={"team": "search"}):
        answer = run(client, ask(client, is_async, model=FIXTURES[name]["model"], contents="Hi"))
    assert isinstance(answer, types.GenerateContentResponse)
    (event,) = recorded()
    expected = pools(name) or {"requests": 1}
    assert folded(event["quantities"], expected) == expected
    assert (event["workspace"], event["tool"], event["user"]) == ("acme", "chat", "u-17")
    assert event["tags"] == {"team": "search"}
    assert (event["provider"], event["model"]) == ("google", FIXTURES[name]["model"])
    assert event.get("metadata", {}).get("request_id") == FIXTURES[name]["response"].get("responseId")


def test_an_embedding_and_a_raw_answer_are_recorded(client: Any, provider: Any, meter: Any, recorded: Any) -> None:
    provider.queue(as_json({"embeddings": [{"values": [0.1]}], "usageMetadata": {"promptTokenCount": 512}}))
    provider.queue(as_json(EVENTS[-1]))
    with meter.attribution("acme", tool="chat"):
        client.models.embed_content(model="gemini-embedding-2", contents="Hi")
        client.models.generate_content(model="m", contents="Hi", config={"should_return_http_response": True})
    assert [event["quantities"] for event in recorded()] == [{"input_tokens": 512}, WHOLE]


@pytest.mark.parametrize("size", [None, 1, 7, 4096])
def test_a_stream_is_recorded_whole(size: int | None, client: Any, provider: Any, meter: Any, recorded: Any) -> None:
    with meter.attribution("acme", tool="chat"):
        chunks = stream(client, size, provider)
    assert len(list(chunks)) == len(EVENTS)  # paid for by whom it was asked for
    (event,) = recorded()
    assert event["quantities"] == WHOLE
    assert event["metadata"] == {"request_id": "rid_abc"}


@pytest.mark.parametrize("taken", [1, 2])
def test_a_stream_that_the_caller_leaves_is_a_lower_bound(
    taken: int, client: Any, provider: Any, meter: Any, recorded: Any
) -> None:
    async def leave() -> None:
        provider.queue(as_events(EVENTS))
        chunks = await client.aio.models.generate_content_stream(model="gemini-2.5-pro", contents="Hi")
        for _ in range(taken):
            await anext(chunks)
        await chunks.aclose()

    with meter.attribution("acme", tool="chat"):
        chunks = stream(client, None, provider)
        for _ in range(taken):
            next(chunks)
        del chunks
        run(client, leave())
    events = recorded()
    assert len(events) == 2
    for event in events:
        assert event["quantities"] == {"input_tokens": 21, "output_tokens": 25}
        assert event["metadata"]["flags"] == ["stream_incomplete", "output_lower_bound"]


def test_a_stream_that_is_cancelled_or_dies_is_recorded_once(
    client: Any, provider: Any, meter: Any, recorded: Any
) -> None:
    async def cancelled() -> None:
        provider.queue(as_events(EVENTS[:1]).hanging())
        chunks = await client.aio.models.generate_content_stream(model="gemini-2.5-pro", contents="Hi")
        await anext(chunks)
        async with asyncio.timeout(0.05):
            await anext(chunks)

    with meter.attribution("acme", tool="chat"):
        with pytest.raises(TimeoutError):
            run(client, cancelled())
        provider.queue(as_events(EVENTS[:2]).dying())
        with pytest.raises(Exception, match="peer closed"):
            list(client.models.generate_content_stream(model="gemini-2.5-pro", contents="Hi"))
    for event in recorded():
        assert event["quantities"] == {"input_tokens": 21, "output_tokens": 25}
        assert event["metadata"]["flags"] == ["stream_incomplete", "output_lower_bound"]


@pytest.mark.parametrize("asks", ["chat", "models", "stream"])
def test_each_request_of_a_function_that_is_called_by_itself_is_recorded(
    asks: str, client: Any, provider: Any, meter: Any, recorded: Any
) -> None:
    def weather(city: str) -> str:
        """Tell the weather."""
        return f"It is sunny in {city}."

    content = {"role": "model", "parts": [{"functionCall": {"name": "weather", "args": {"city": "Rome"}}}]}
    call = {**EVENTS[-1], "candidates": [{"content": content, "finishReason": "STOP", "index": 0}]}
    arguments = {"model": "gemini-2.5-pro", "config": {"tools": [weather]}}
    replies = [as_events([event]) if asks == "stream" else as_json(event) for event in (call, EVENTS[-1])]
    provider.queue(*replies)
    with meter.attribution("acme", tool="chat"):
        if asks == "chat":
            client.chats.create(**arguments).send_message("Hi")
        elif asks == "models":
            client.models.generate_content(contents="Hi", **arguments)
        else:
            list(client.models.generate_content_stream(contents="Hi", **arguments))
    assert [event["quantities"] for event in recorded()] == [WHOLE, WHOLE]


def test_a_call_is_checked_before_it_is_made(client: Any, provider: Any, meter: Any, recorded: Any) -> None:
    arguments = {"model": "gemini-2.5-pro", "contents": "Hi"}
    with pytest.raises(NoAttributionError):
        client.models.generate_content(**arguments)
    with meter.attribution("broke", tool="chat"):
        for method in (client.models.generate_content, client.models.generate_content_stream):
            with pytest.raises(AIDisabled, match="broke"):
                method(**arguments)
    assert (provider.requests, recorded()) == ([], [])


def test_a_failed_call_consumes_nothing_and_one_that_is_repeated_counts_once(
    client: Any, provider: Any, meter: Any, recorded: Any
) -> None:
    error = as_json({"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}}, status=429)
    with meter.attribution("acme", tool="chat"):
        provider.queue(error, error, as_json(EVENTS[-1]))
        client.models.generate_content(model="gemini-2.5-pro", contents="Hi")
        provider.queue(error, error, error)
        with pytest.raises(genai.errors.ClientError, match="slow down"):
            list(client.models.generate_content_stream(model="gemini-2.5-pro", contents="Hi"))
    assert len(provider.requests) == 6
    assert [event["quantities"] for event in recorded()] == [WHOLE]


REFUSED = {
    "models.generate_videos": {"model": "veo"},
    "batches.create": {"model": "gemini-2.5-pro", "src": "files/1"},
    "caches.create": {"model": "gemini-2.5-pro"},
    "interactions.create": {"model": "gemini-2.5-pro", "input": "Hi"},
    "interactions.with_raw_response.create": {"model": "gemini-2.5-pro", "input": "Hi"},
    "aio.live.connect": {"model": "gemini-live"},
    "aio.live.music.connect": {"model": "lyria"},
    "aio.models.generate_videos": {"model": "veo"},
    "auth_tokens.create": {},
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("path", REFUSED)
def test_what_cannot_be_followed_is_refused(path: str, client: Any, provider: Any, meter: Any) -> None:
    method = client
    for name in path.split("."):
        method = getattr(method, name)
    with meter.attribution("acme", tool="chat"), pytest.raises(NotMeteredError, match=path.removeprefix("aio.")):
        method(**REFUSED[path])
    assert provider.requests == []


def test_the_client_stays_what_it_was(client: Any, provider: Any) -> None:
    assert isinstance(client, genai.Client)
    assert isinstance(client.models, genai.models.Models)
    provider.queue(as_json({"totalTokens": 7}))
    assert client.models.count_tokens(model="gemini-2.5-pro", contents="Hi").total_tokens == 7
