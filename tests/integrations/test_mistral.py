"""Mistral's own SDK behind a meter, its HTTP answered by a local server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mistralai.client import Mistral
from mistralai.client.utils import BackoffStrategy, RetryConfig
from mistralai.client.utils.eventstreaming import EventStream

from adapter_fixtures import FIXTURES, pools
from servers.provider import as_events, as_json
from taximeter import AIDisabled, NoAttributionError, NotMeteredError

ASKED: dict[str, Any] = {"model": "mistral-large-2512", "messages": [{"role": "user", "content": "Hi"}]}
CHUNK = FIXTURES["mis-stream"]["events"][0]["data"]
FIRST = {**CHUNK, "usage": None, "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]}
REST = {"object": "chat.completion", "created": 1, "choices": []}


@pytest.fixture
def client(provider: Any, meter: Any) -> Any:
    retries = RetryConfig("backoff", BackoffStrategy(10, 20, 1.5, 1000), retry_connection_errors=True)
    with meter.wrap(Mistral(api_key="k", server_url=provider.address, retry_config=retries)) as wrapped:
        yield wrapped


def run(client: Any, work: Any) -> Any:
    """Run a coroutine, and close the client's connections in its loop."""

    async def closing() -> Any:
        async with client:
            return await work

    return asyncio.run(closing())


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("name", ["mis-cached", "mis-audio-seconds"])
def test_an_answer_is_recorded(
    name: str, is_async: bool, client: Any, provider: Any, meter: Any, recorded: Any
) -> None:
    provider.queue(as_json({**REST, **FIXTURES[name]["response"]}))
    with meter.attribution("acme", tool="chat", user="u-17"):
        run(client, client.chat.complete_async(**ASKED)) if is_async else client.chat.complete(**ASKED)
    (event,) = recorded()
    assert event["quantities"] == pools(name)
    assert (event["provider"], event["model"], event["user"]) == ("mistral", FIXTURES[name]["model"], "u-17")


def test_other_answers_are_recorded(client: Any, provider: Any, meter: Any, recorded: Any) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 5}
    provider.queue(as_json({"pages": [], **FIXTURES["mis-ocr-pages"]["response"]}))
    provider.queue(as_json({"id": "e", "object": "list", "data": [], "model": "mistral-embed", "usage": usage}))
    with meter.attribution("acme", tool="chat"):
        client.ocr.process(model="mistral-ocr-2505", document={"type": "document_url", "document_url": "https://x.y"})
        client.embeddings.create(model="mistral-embed", inputs=["Hi"])
    assert [event["quantities"] for event in recorded()] == [pools("mis-ocr-pages"), {"input_tokens": 5}]


@pytest.mark.parametrize("size", [None, 1, 64])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_stream_is_recorded_whole(
    is_async: bool, size: int | None, client: Any, provider: Any, meter: Any, recorded: Any
) -> None:
    async def read() -> list[Any]:
        async with await client.chat.stream_async(**ASKED) as stream:
            return [event async for event in stream]

    provider.queue(as_events([FIRST, CHUNK], size=size, end="data: [DONE]\n\n"))
    with meter.attribution("acme", tool="chat"):
        if is_async:
            events = run(client, read())
        else:
            stream = client.chat.stream(**ASKED)
            assert isinstance(stream, EventStream)
            events = list(stream)
    assert [event.data.id for event in events] == ["cmpl-s", "cmpl-s"]
    (event,) = recorded()
    assert event["quantities"] == pools("mis-stream")
    assert event["metadata"] == {"request_id": "cmpl-s"}


def test_a_stream_that_is_left_dropped_or_dies_is_flagged(
    client: Any, provider: Any, meter: Any, recorded: Any
) -> None:
    async def cancelled() -> None:
        async with await client.chat.stream_async(**ASKED) as stream, asyncio.timeout(0.05):
            async for _event in stream:
                pass

    with meter.attribution("acme", tool="chat"):
        provider.queue(as_events([FIRST]).hanging(), as_events([FIRST, CHUNK]), as_events([FIRST]).dying())
        with pytest.raises(TimeoutError):
            run(client, cancelled())
        with client.chat.stream(**ASKED) as stream:
            next(stream)
        with pytest.raises(Exception, match="peer closed"):
            list(client.chat.stream(**ASKED))
    events = recorded()
    assert [event["quantities"] for event in events] == [{"requests": 1}] * 3
    assert {tuple(event["metadata"]["flags"]) for event in events} == {("usage_missing", "stream_incomplete")}


def test_a_call_is_checked_before_and_counts_once(client: Any, provider: Any, meter: Any, recorded: Any) -> None:
    with pytest.raises(NoAttributionError):
        client.chat.complete(**ASKED)
    with meter.attribution("broke", tool="chat"), pytest.raises(AIDisabled):
        client.chat.stream(**ASKED)
    with meter.attribution("acme", tool="chat"):
        for method in (client.batch.jobs.create, client.beta.conversations.start, client.audio.speech.complete):
            with pytest.raises(NotMeteredError):
                method()
        assert provider.requests == []
        answer = as_json({**REST, **FIXTURES["mis-cached"]["response"]})
        provider.queue(as_json({"detail": "slow down"}, status=503), answer)
        client.chat.complete(**ASKED)
    assert len(provider.requests) == 2
    assert [event["quantities"] for event in recorded()] == [pools("mis-cached")]


def test_what_is_free_passes(client: Any, provider: Any) -> None:
    assert isinstance(client, Mistral)
    provider.queue(as_json({"id": "f", "object": "file", "deleted": True}))
    assert client.files.delete(file_id="f").deleted
