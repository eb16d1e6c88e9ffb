"""Calls of LiteLLM with the callback, in a process of their own: LiteLLM leaves loops and sockets open, and threads running.

Each way is attributed to a tool of its name. Run by test_litellm.py, which prepares the provider's replies in this order.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import litellm
import openai
import pytest

from taximeter import Meter, TaximeterError
from taximeter.integrations.litellm import TaximeterCallback
from taximeter.testing import MemoryMeter

ADDRESS, EXPECTED = sys.argv[1], set(sys.argv[2].split(","))
ASKED: dict[str, Any] = {"model": "openai/gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
WHERE: dict[str, Any] = {"api_key": "k", "api_base": ADDRESS}
INPUT: dict[str, Any] = {**WHERE, "model": "openai/gpt-4o", "input": "Hi"}
CALL: dict[str, Any] = {**ASKED, **WHERE, "num_retries": 0}


def completion(_meter: Meter) -> None:
    litellm.completion(**CALL)


def stream(_meter: Meter) -> None:
    list(litellm.completion(**CALL, stream=True, stream_options={"include_usage": True}))


def stream_that_was_not_asked(_meter: Meter) -> None:
    list(litellm.completion(**CALL, stream=True))


def stream_left(_meter: Meter) -> None:
    pieces = litellm.completion(**CALL, stream=True)
    next(pieces)
    del pieces
    gc.collect()


def failed(_meter: Meter) -> None:
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(**CALL)


async def acompletion(_meter: Meter) -> None:
    await litellm.acompletion(**CALL)


async def astream(_meter: Meter) -> None:
    pieces = [piece async for piece in await litellm.acompletion(**CALL, stream=True)]
    assert pieces[0].choices[0].delta.content == "Hi"


async def astream_left(_meter: Meter) -> None:
    async for _piece in await litellm.acompletion(**CALL, stream=True):
        break
    gc.collect()


async def astream_broken(_meter: Meter) -> None:
    with pytest.raises(Exception, match="Connection error"):
        await astream(_meter)


async def afailed(_meter: Meter) -> None:
    with pytest.raises(litellm.BadRequestError):
        await litellm.acompletion(**CALL)


async def aembedding(_meter: Meter) -> None:
    await litellm.aembedding(**{**INPUT, "model": "openai/text-embedding-3-small", "input": ["Hi"]})


async def aresponses(_meter: Meter) -> None:
    await litellm.aresponses(**INPUT)


async def aresponses_stream(_meter: Meter) -> None:
    async for _event in await litellm.aresponses(**INPUT, stream=True):
        pass


async def router(_meter: Meter) -> None:
    deployment = {"model_name": "chat", "litellm_params": {"model": ASKED["model"], **WHERE}}
    await litellm.Router([deployment], num_retries=1, retry_after=0).acompletion("chat", ASKED["messages"])


async def refusals(meter: Meter) -> list[str]:
    """What the refused calls raised, by name."""
    raised = []

    async def refused(work: Any) -> None:
        try:
            await work
        except TaximeterError as error:
            raised.append(type(error).__name__)

    await refused(litellm.acompletion(**CALL))
    with meter.attribution("broke", tool="chat"):
        await refused(litellm.acompletion(**CALL))
        await refused(litellm.aembedding(**INPUT))
        await refused(litellm.aresponses(**INPUT))
    async with openai.AsyncOpenAI(api_key="k", base_url=ADDRESS) as client:
        with meter.attribution("acme", tool="chat"):
            await refused(litellm.aspeech(**{**INPUT, "model": "openai/tts-1", "voice": "ash"}))
            await refused(litellm.acompletion(**CALL, client=meter.wrap(client)))
    return raised


async def example(meter: MemoryMeter) -> None:
    """That of docs/integrations.md, as it stands there."""
    page = (Path(__file__).parents[2] / "docs" / "integrations.md").read_text()
    (text,) = re.findall(r"^## LiteLLM\n+```python\n(.*?)```", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"meter": meter}
    exec(text, names)
    os.environ["OPENAI_BASE_URL"], os.environ["OPENAI_API_KEY"] = ADDRESS, "k"
    await names["ask"]()


SYNC: list[Callable[[Meter], Any]] = [completion, stream, stream_that_was_not_asked, stream_left, failed]
ASYNC: list[Callable[[Meter], Any]] = [
    acompletion,
    astream,
    astream_left,
    astream_broken,
    afailed,
    aembedding,
    aresponses,
    aresponses_stream,
    router,
]


async def run(meter: MemoryMeter) -> list[str]:
    refused = await refusals(meter)
    for way in ASYNC:
        with meter.attribution("acme", tool=way.__name__, user="u-17"):
            await way(meter)
    await example(meter)
    while not {event["data"]["tool"] for event in meter.usages} >= EXPECTED:  # LiteLLM's tasks need their loop
        gc.collect()
        await asyncio.sleep(0.05)
    return refused


def main() -> None:
    meter = MemoryMeter()
    meter.set_status("broke", "insufficient")
    litellm.callbacks = [TaximeterCallback(meter)]
    for way in SYNC:
        with meter.attribution("acme", tool=way.__name__, user="u-17"):
            way(meter)
    refused = asyncio.run(run(meter))
    print(json.dumps({"refused": refused, "usages": meter.usages}))


if __name__ == "__main__":
    main()
