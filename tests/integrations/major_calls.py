"""Calls of one library, whole and streamed, sync and async, for whichever version of it is installed.

Run by test_previous_majors.py in an environment that holds the SDK's dependencies and the library alone. Each way is
attributed to a tool of its name; the last line of the output holds what was recorded.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

from taximeter.testing import MemoryMeter

LIBRARY, ADDRESS = sys.argv[1:]
SAID: Any = [{"role": "user", "content": "Hi"}]
Ways = dict[str, Callable[[], Any]]


def openai(meter: MemoryMeter) -> Ways:
    import openai

    about: dict[str, Any] = {"api_key": "k", "base_url": ADDRESS}
    asked: dict[str, Any] = {"model": "gpt-4o", "messages": SAID}
    client = meter.wrap(openai.OpenAI(**about)).chat.completions
    another = meter.wrap(openai.AsyncOpenAI(**about)).chat.completions
    return {
        "whole": lambda: client.create(**asked),
        "stream": lambda: list(client.create(**asked, stream=True)),
        "awhole": lambda: another.create(**asked),
        "astream": lambda: drained(another.create(**asked, stream=True)),
    }


def anthropic(meter: MemoryMeter) -> Ways:
    import anthropic

    about: dict[str, Any] = {"api_key": "k", "base_url": ADDRESS}
    asked: dict[str, Any] = {"model": "claude-opus-4-5", "max_tokens": 9, "messages": SAID}
    client = meter.wrap(anthropic.Anthropic(**about)).messages
    another = meter.wrap(anthropic.AsyncAnthropic(**about)).messages
    return {
        "whole": lambda: client.create(**asked),
        "stream": lambda: list(client.create(**asked, stream=True)),
        "awhole": lambda: another.create(**asked),
        "astream": lambda: drained(another.create(**asked, stream=True)),
    }


def google(meter: MemoryMeter) -> Ways:
    from google import genai

    client = meter.wrap(genai.Client(api_key="k", http_options={"base_url": ADDRESS}))
    asked: dict[str, Any] = {"model": "gemini-2.5-pro", "contents": "Hi"}
    return {
        "whole": lambda: client.models.generate_content(**asked),
        "stream": lambda: list(client.models.generate_content_stream(**asked)),
        "awhole": lambda: client.aio.models.generate_content(**asked),
        "astream": lambda: drained(client.aio.models.generate_content_stream(**asked)),
    }


def mistral(meter: MemoryMeter) -> Ways:
    from mistralai.client import Mistral

    chat = meter.wrap(Mistral(api_key="k", server_url=ADDRESS)).chat
    asked: dict[str, Any] = {"model": "mistral-large-2512", "messages": SAID}
    return {
        "whole": lambda: chat.complete(**asked),
        "stream": lambda: list(chat.stream(**asked)),
        "awhole": lambda: chat.complete_async(**asked),
        "astream": lambda: drained(chat.stream_async(**asked)),
    }


def cohere(meter: MemoryMeter) -> Ways:
    import cohere

    client = meter.wrap(cohere.ClientV2("k", base_url=ADDRESS))
    another = meter.wrap(cohere.AsyncClientV2("k", base_url=ADDRESS))
    asked: dict[str, Any] = {"model": "command-a", "messages": SAID}
    return {
        "whole": lambda: client.chat(**asked),
        "stream": lambda: list(client.chat_stream(**asked)),
        "awhole": lambda: another.chat(**asked),
        "astream": lambda: drained(another.chat_stream(**asked)),
    }


def langchain(meter: MemoryMeter) -> Ways:
    from langchain_openai import ChatOpenAI

    from taximeter.integrations.langchain import TaximeterCallback

    model = ChatOpenAI(
        model="gpt-4o", api_key="k", base_url=ADDRESS, stream_usage=True, callbacks=[TaximeterCallback(meter)]
    )
    return {
        "whole": lambda: model.invoke("Hi"),
        "stream": lambda: list(model.stream("Hi")),
        "awhole": lambda: model.ainvoke("Hi"),
        "astream": lambda: drained(model.astream("Hi")),
    }


def llama_index(meter: MemoryMeter) -> Ways:
    import openai
    from llama_index.core.llms import ChatMessage
    from llama_index.llms.openai import OpenAI

    about: dict[str, Any] = {"api_key": "k", "base_url": ADDRESS}
    clients: dict[str, Any] = {
        "openai_client": meter.wrap(openai.OpenAI(**about)),
        "async_openai_client": meter.wrap(openai.AsyncOpenAI(**about)),
    }
    model = OpenAI(model="gpt-4o", api_key="k", **clients)
    said = [ChatMessage(role="user", content="Hi")]
    return {
        "whole": lambda: model.chat(said),
        "stream": lambda: list(model.stream_chat(said)),
        "awhole": lambda: model.achat(said),
        "astream": lambda: drained(model.astream_chat(said)),
    }


def pydantic_ai(meter: MemoryMeter) -> Ways:
    from openai import AsyncOpenAI
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    from taximeter.integrations.pydantic_ai import TaximeterModel

    provider = OpenAIProvider(openai_client=AsyncOpenAI(api_key="k", base_url=ADDRESS))
    agent = Agent(TaximeterModel(OpenAIChatModel("gpt-4o", provider=provider), meter))

    async def stream() -> None:
        async with agent.run_stream("Hi") as result:
            await result.get_output()

    return {"awhole": lambda: agent.run("Hi"), "astream": stream}


async def drained(stream: Any) -> None:
    """Read a stream, or what comes of waiting for one."""
    if not hasattr(stream, "__aiter__"):
        stream = await stream
    async for _ in stream:
        pass


def main() -> None:
    meter = MemoryMeter()
    ways: Ways = globals()[LIBRARY](meter)

    async def run_async() -> None:
        for name, way in ways.items():
            if name.startswith("a"):
                with meter.attribution("acme", tool=name):
                    await way()

    for name, way in ways.items():
        if not name.startswith("a"):
            with meter.attribution("acme", tool=name):
                way()
    asyncio.run(run_async())
    print(json.dumps({event["data"]["tool"]: event["data"]["quantities"] for event in meter.usages}))
    assert len(meter.usages) == len(ways), "each call is recorded once"


if __name__ == "__main__":
    main()
