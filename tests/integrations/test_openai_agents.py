"""openai-agents' own runner and models, their HTTP answered by a local server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agents import Agent, OpenAIChatCompletionsModel, OpenAIProvider, RunConfig, Runner, set_tracing_disabled
from openai import AsyncOpenAI

from adapter_fixtures import FIXTURES, pools
from servers.provider import as_events, as_json
from taximeter import AIDisabled, NoAttributionError
from taximeter.integrations.openai_agents import TaximeterModel, TaximeterProvider
from taximeter.testing import MemoryMeter

NAME = "oai-resp-plain"
PART = {"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}
MESSAGE = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [PART]}
WHOLE = {
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    **FIXTURES[NAME]["response"],
    "output": [MESSAGE],
}
STARTED = {"type": "response.created", "sequence_number": 0, "response": {**WHOLE, "usage": None, "output": []}}
ENDED = {"type": "response.completed", "sequence_number": 1, "response": WHOLE}
CHAT = {
    "object": "chat.completion",
    "created": 1,
    **FIXTURES["oai-chat-cached"]["response"],
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}],
}
LEFT = ["usage_missing", "stream_incomplete"]


@pytest.fixture
def meter() -> MemoryMeter:
    set_tracing_disabled(disabled=True)
    return MemoryMeter()


def run(provider: Any, meter: Any, work: Any, *, wraps: bool = False) -> Any:
    async def running() -> Any:
        async with AsyncOpenAI(api_key="k", base_url=provider.address, max_retries=0) as client:
            models = OpenAIProvider(openai_client=meter.wrap(client) if wraps else client, use_responses=True)
            agent = Agent("one", model="gpt-5")
            return await work(agent, RunConfig(model_provider=TaximeterProvider(meter, wrapped=models)))

    return asyncio.run(running())


async def ask(agent: Any, config: Any) -> None:
    assert (await Runner.run(agent, "Hi", run_config=config)).final_output == "Hi"


async def read(agent: Any, config: Any) -> None:
    result = Runner.run_streamed(agent, "Hi", run_config=config)
    async for _event in result.stream_events():
        pass
    assert result.final_output == "Hi"


@pytest.mark.parametrize("wraps", [False, True], ids=["plain", "wrapped"])
@pytest.mark.parametrize("way", [ask, read])
def test_a_request_is_recorded_once(way: Any, wraps: bool, provider: Any, meter: MemoryMeter) -> None:
    provider.queue(as_json(WHOLE) if way is ask else as_events([STARTED, ENDED], named=True))
    with meter.attribution("acme", tool="agent", user="u-17"):
        run(provider, meter, way, wraps=wraps)
    (event,) = (usage["data"] for usage in meter.usages)
    assert event["quantities"] == pools(NAME)
    assert (event["provider"], event["user"]) == ("openai", "u-17")
    assert event["metadata"]["request_id"] == WHOLE["id"]
    assert "flags" not in event["metadata"]


def test_a_model_of_chat_is_recorded(provider: Any, meter: MemoryMeter) -> None:
    async def chat(_agent: Any, config: Any) -> None:
        async with AsyncOpenAI(api_key="k", base_url=provider.address) as client:
            model = TaximeterModel(OpenAIChatCompletionsModel("gpt-4o", client), meter)
            await Runner.run(Agent("two", model=model), "Hi", run_config=config)

    provider.queue(as_json(CHAT))
    with meter.attribution("acme", tool="agent"):
        run(provider, meter, chat)
    (event,) = (usage["data"] for usage in meter.usages)
    assert (event["model"], event["quantities"]) == ("gpt-4o", pools("oai-chat-cached"))


def test_a_stream_that_breaks_is_recorded(provider: Any, meter: MemoryMeter) -> None:
    provider.queue(as_events([STARTED], named=True).dying())
    with meter.attribution("acme", tool="agent"), pytest.raises(Exception, match=r"."):
        run(provider, meter, read)
    (event,) = (usage["data"] for usage in meter.usages)
    assert event["quantities"] == {"requests": 1}
    assert event["metadata"]["flags"] == LEFT


def test_a_request_is_checked_before_and_a_failed_one_consumes_nothing(provider: Any, meter: MemoryMeter) -> None:
    meter.set_status("broke", "insufficient")
    for way in (ask, read):
        with pytest.raises(NoAttributionError):
            run(provider, meter, way)
        with meter.attribution("broke", tool="agent"), pytest.raises(AIDisabled):
            run(provider, meter, way)
    assert provider.requests == []
    provider.queue(*[as_json({"error": {"message": "no"}}, status=400)] * 2)
    for way in (ask, read):
        with meter.attribution("acme", tool="agent"), pytest.raises(Exception, match="no"):
            run(provider, meter, way)
    assert meter.usages == []
