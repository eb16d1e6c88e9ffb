"""pydantic-ai's own models and agents, their HTTP answered by a local server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from adapter_fixtures import FIXTURES, pools
from servers.provider import as_events, as_json
from taximeter import AIDisabled, NoAttributionError
from taximeter.integrations.pydantic_ai import TaximeterModel

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


def run(provider: Any, meter: Any, work: Any, *, wraps: bool = False) -> Any:
    async def running() -> Any:
        async with AsyncOpenAI(api_key="k", base_url=provider.address, max_retries=0) as client:
            openai = OpenAIProvider(openai_client=meter.wrap(client) if wraps else client)
            return await work(Agent(TaximeterModel(OpenAIChatModel("gpt-4o", provider=openai), meter)))

    return asyncio.run(running())


async def ask(agent: Any) -> None:
    assert (await agent.run("Hi")).output == "Hi"


async def read(agent: Any) -> None:
    async with agent.run_stream("Hi") as result:
        assert await result.get_output() == "Hi"


@pytest.mark.parametrize("wraps", [False, True], ids=["plain", "wrapped"])
@pytest.mark.parametrize("way", [ask, read])
def test_a_request_is_recorded_once(way: Any, wraps: bool, provider: Any, meter: Any, recorded: Any) -> None:
    provider.queue(as_json(ANSWER) if way is ask else as_events(CHUNKS, end="data: [DONE]\n\n"))
    with meter.attribution("acme", tool="agent", user="u-17"):
        run(provider, meter, way, wraps=wraps)
    (event,) = recorded()
    assert event["quantities"] == pools(NAME)
    assert (event["provider"], event["user"]) == ("openai", "u-17")
    assert event["metadata"] == {"request_id": ANSWER["id"]}


def test_a_stream_that_is_left_is_recorded(provider: Any, meter: Any, recorded: Any) -> None:
    provider.queue(as_events(CHUNKS[:1]).dying())
    with meter.attribution("acme", tool="agent"), pytest.raises(Exception, match=r"."):
        run(provider, meter, read)
    (event,) = recorded()
    assert event["quantities"] == {"requests": 1}
    assert event["metadata"]["flags"] == ["usage_missing", "stream_incomplete"]


def test_a_request_is_checked_before(provider: Any, meter: Any, recorded: Any) -> None:
    with pytest.raises(NoAttributionError):
        run(provider, meter, ask)
    with meter.attribution("broke", tool="agent"):
        for way in (ask, read):
            with pytest.raises(AIDisabled):
                run(provider, meter, way)
    assert (provider.requests, recorded()) == ([], [])
