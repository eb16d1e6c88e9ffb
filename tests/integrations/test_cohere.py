"""Cohere's own SDK behind a meter, its HTTP answered by a local server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import cohere
import pytest

from adapter_fixtures import FIXTURES, pools
from servers.provider import Reply, as_events, as_json
from taximeter import AIDisabled, NoAttributionError, NotMeteredError

ASKED: dict[str, Any] = {"model": "command-a", "messages": [{"role": "user", "content": "Hi"}]}
EVENTS = [
    {"type": "message-start", "id": "x1", "delta": {"message": {"role": "assistant"}}},
    {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Hi"}}}},
    *FIXTURES["coh-stream"]["events"],
]


@pytest.fixture
def client(provider: Any, meter: Any) -> Any:
    with meter.wrap(cohere.ClientV2("k", base_url=provider.address)) as wrapped:
        yield wrapped


@pytest.fixture
def async_client(provider: Any, meter: Any) -> Any:
    return meter.wrap(cohere.AsyncClientV2("k", base_url=provider.address))


def run(client: Any, work: Any) -> Any:
    async def closing() -> Any:
        async with client:
            return await work

    return asyncio.run(closing())


def test_an_answer_is_recorded(client: Any, async_client: Any, provider: Any, meter: Any, recorded: Any) -> None:
    provider.queue(*[as_json(FIXTURES["coh-billed"]["response"])] * 2)
    with meter.attribution("acme", tool="chat", user="u-17"):
        answer = client.chat(**ASKED)
        run(async_client, async_client.chat(**ASKED))
    assert answer.message.content[0].text == "Hi"
    for event in recorded():
        assert event["quantities"] == pools("coh-billed")
        assert (event["provider"], event["model"], event["user"]) == ("cohere", "command-a", "u-17")
        assert event["metadata"] == {"request_id": FIXTURES["coh-billed"]["response"]["id"]}


def test_embeddings_and_rerankings_are_recorded(client: Any, provider: Any, meter: Any, recorded: Any) -> None:
    embedded = {"id": "e", "embeddings": {"float": [[0.1]]}, "texts": ["Hi"], "response_type": "embeddings_by_type"}
    provider.queue(as_json({**embedded, **FIXTURES["coh-embed"]["response"]}))
    provider.queue(as_json({"results": [], **FIXTURES["coh-rerank"]["response"]}))
    with meter.attribution("acme", tool="search"):
        client.embed(model="embed-v4.0", input_type="search_query", texts=["Hi"], embedding_types=["float"])
        client.rerank(model="rerank-v4", query="Hi", documents=["Hi"])
    assert [event["quantities"] for event in recorded()] == [pools("coh-embed"), pools("coh-rerank")]


@pytest.mark.parametrize("size", [None, 1, 64])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_stream_is_recorded_whole(
    is_async: bool, size: int | None, client: Any, async_client: Any, provider: Any, meter: Any, recorded: Any
) -> None:
    async def read() -> list[Any]:
        return [event async for event in async_client.chat_stream(**ASKED)]

    provider.queue(as_events(EVENTS, size=size))
    with meter.attribution("acme", tool="chat"):
        events = run(async_client, read()) if is_async else list(client.chat_stream(**ASKED))
    assert [event.type for event in events] == [event["type"] for event in EVENTS]
    (event,) = recorded()
    assert event["quantities"] == pools("coh-stream")
    assert event["metadata"] == {"request_id": "x1"}


def test_a_stream_that_is_left_cancelled_or_dies_is_flagged(
    client: Any, async_client: Any, provider: Any, meter: Any, recorded: Any
) -> None:
    async def cancelled() -> None:
        async with asyncio.timeout(None) as limit:
            async for _event in async_client.chat_stream(**ASKED):
                limit.reschedule(0)  # the request has come: cancelled while nothing more does

    with meter.attribution("acme", tool="chat"):
        provider.queue(as_events(EVENTS[:2]).hanging(), as_events(EVENTS[:2]).hanging(), as_events(EVENTS[:2]).dying())
        with pytest.raises(TimeoutError):
            run(async_client, cancelled())
        stream = client.chat_stream(**ASKED)
        next(stream)
        stream.close()
        with pytest.raises(Exception, match="peer closed"):
            list(client.chat_stream(**ASKED))
        client.chat_stream(**ASKED)  # asks nothing before its first event
    events = recorded()
    assert [event["quantities"] for event in events] == [{"requests": 1}] * 3
    assert {tuple(event["metadata"]["flags"]) for event in events} == {("usage_missing", "stream_incomplete")}


def test_the_first_version_is_recorded(provider: Any, meter: Any, recorded: Any) -> None:
    meta = {"meta": {"billed_units": {"input_tokens": 5, "output_tokens": 6}}}
    ended = {"event_type": "stream-end", "finish_reason": "COMPLETE", "response": {"text": "Hi", **meta}}
    provider.queue(as_json({"text": "Hi", **meta}), as_json(FIXTURES["coh-billed"]["response"]))
    with meter.wrap(cohere.Client("k", base_url=provider.address)) as client, meter.attribution("acme", tool="chat"):
        client.chat(message="Hi", model="command-r")
        client.v2.chat(**ASKED)
        provider.queue(Reply((json.dumps(ended).encode() + b"\n",)))
        list(client.chat_stream(message="Hi", model="command-r"))
    plain = {"input_tokens": 5, "output_tokens": 6}
    events = recorded()
    assert [event["quantities"] for event in events] == [plain, pools("coh-billed"), plain]
    assert "flags" not in events[2].get("metadata", {})


def test_a_call_is_checked_before_and_counts_once(client: Any, provider: Any, meter: Any, recorded: Any) -> None:
    with pytest.raises(NoAttributionError):
        client.chat(**ASKED)
    with meter.attribution("broke", tool="chat"), pytest.raises(AIDisabled):
        client.chat_stream(**ASKED)
    with meter.attribution("acme", tool="chat"):
        for method in (client.embed_jobs.create, client.embed_stream, client.with_raw_response.chat):
            with pytest.raises(NotMeteredError):
                method(**ASKED)
        assert provider.requests == []
        provider.queue(as_json({"message": "slow"}, status=503), as_json(FIXTURES["coh-billed"]["response"]))
        client.chat(**ASKED)
        provider.queue(as_json({"message": "no"}, status=400))
        with pytest.raises(cohere.errors.BadRequestError):
            list(client.chat_stream(**ASKED))
    assert [event["quantities"] for event in recorded()] == [pools("coh-billed")]
    assert isinstance(client, cohere.ClientV2)
