"""LangChain's own models with the callback, their HTTP answered by a local server."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import openai
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI

from adapter_fixtures import FIXTURES, pools
from servers.provider import as_events, as_json
from taximeter import AIDisabled, NoAttributionError
from taximeter.integrations.langchain import TaximeterCallback

NAME = "oai-chat-cached"
MESSAGE = {"role": "assistant", "content": "Hi"}
ANSWER = {
    "object": "chat.completion",
    "created": 1,
    **FIXTURES[NAME]["response"],
    "choices": [{"index": 0, "finish_reason": "stop", "message": MESSAGE}],
}
CHUNKS = [
    {**ANSWER, "object": "chat.completion.chunk", "usage": None, "choices": [{"index": 0, "delta": MESSAGE}]},
    {**ANSWER, "object": "chat.completion.chunk", "choices": []},
]
STREAM = as_events(CHUNKS, end="data: [DONE]\n\n")


@pytest.fixture
def model(provider: Any, meter: Any) -> Any:
    return make(provider, TaximeterCallback(meter))


def make(provider: Any, *callbacks: Any, **settings: Any) -> Any:
    return ChatOpenAI(
        model="gpt-4o",
        api_key="k",
        base_url=provider.address,
        max_retries=0,
        stream_usage=True,
        callbacks=list(callbacks),
        **settings,
    )


async def astream(model: Any, count: int | None = None) -> None:
    stream = model.astream("Hi")
    taken = 0
    async for _chunk in stream:
        taken += 1
        if taken == count:
            break
    await stream.aclose()


@pytest.mark.filterwarnings("ignore:Unexpected type for token usage:UserWarning")
@pytest.mark.parametrize("way", ["invoke", "ainvoke", "batch", "generate", "stream", "astream"])
def test_a_run_is_recorded(way: str, model: Any, provider: Any, meter: Any, recorded: Any) -> None:
    is_stream = "stream" in way
    count = 2 if way in {"batch", "generate"} else 1
    provider.queue(*[STREAM if is_stream else as_json(ANSWER)] * count)
    with meter.attribution("acme", tool="chat", user="u-17"):
        match way:
            case "invoke":
                model.invoke("Hi")
            case "ainvoke":
                asyncio.run(model.ainvoke("Hi"))
            case "batch":
                model.batch(["Hi", "Ho"])
            case "generate":
                model.generate([[HumanMessage("Hi")], [HumanMessage("Ho")]])
            case "stream":
                list(model.stream("Hi"))
            case "astream":
                asyncio.run(astream(model))
    events = recorded()
    assert [event["quantities"] for event in events] == [pools(NAME)] * count
    for event in events:
        assert (event["provider"], event["user"]) == ("openai", "u-17")
        assert event["model"].startswith("gpt-4o")
        assert event.get("metadata") == (None if is_stream else {"request_id": ANSWER["id"]})  # lost in its streams


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_stream_that_is_left_is_recorded(way: str, model: Any, provider: Any, meter: Any, recorded: Any) -> None:
    provider.queue(STREAM)
    with meter.attribution("acme", tool="chat"):
        if way == "stream":
            stream = model.stream("Hi")
            next(stream)
            stream.close()
        else:
            asyncio.run(astream(model, 1))
    (event,) = recorded()
    assert event["quantities"] == {"requests": 1}
    assert event["metadata"]["flags"] == ["usage_missing", "stream_incomplete"]


@pytest.mark.parametrize("way", ["invoke", "stream", "ainvoke", "astream"])
def test_over_a_wrapped_client_it_is_recorded_once(way: str, provider: Any, meter: Any, recorded: Any) -> None:
    plain = openai.OpenAI(api_key="k", base_url=provider.address)
    aplain = openai.AsyncOpenAI(api_key="k", base_url=provider.address)
    wrapped, awrapped = meter.wrap(plain), meter.wrap(aplain)
    model = make(
        provider,
        TaximeterCallback(meter),
        client=wrapped.chat.completions,
        async_client=awrapped.chat.completions,
        root_client=wrapped,
        root_async_client=awrapped,
    )
    provider.queue(STREAM if "stream" in way else as_json(ANSWER), as_json(ANSWER))
    asked: Any = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}

    async def run() -> None:
        await model.ainvoke("Hi") if way == "ainvoke" else await astream(model)
        wrapped.chat.completions.create(**asked)
        await awrapped.close()

    with meter.attribution("acme", tool="chat"):
        if way.startswith("a"):
            asyncio.run(run())
        else:
            model.invoke("Hi") if way == "invoke" else list(model.stream("Hi"))
            wrapped.chat.completions.create(**asked)  # the run is over: this is another call
    plain.close()
    assert [event["quantities"] for event in recorded()] == [pools(NAME)] * 2


def test_between_the_pieces_of_a_stream_the_caller_makes_calls_of_its_own(
    model: Any, provider: Any, meter: Any, recorded: Any
) -> None:
    plain = openai.OpenAI(api_key="k", base_url=provider.address)
    provider.queue(STREAM, as_json(ANSWER))
    with meter.attribution("acme", tool="chat"):
        stream = model.stream("Hi")
        next(stream)
        asked: Any = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
        meter.wrap(plain).chat.completions.create(**asked)
        list(stream)
    plain.close()
    assert [event["quantities"] for event in recorded()] == [pools(NAME)] * 2


def test_a_run_is_checked_before_and_a_failed_one_consumes_nothing(
    model: Any, provider: Any, meter: Any, recorded: Any
) -> None:
    with pytest.raises(NoAttributionError):
        model.invoke("Hi")
    with meter.attribution("broke", tool="chat"):
        with pytest.raises(AIDisabled):
            model.invoke("Hi")
        with pytest.raises(AIDisabled):
            asyncio.run(model.ainvoke("Hi"))
        with pytest.raises(AIDisabled):
            list(model.stream("Hi"))
    assert provider.requests == []
    provider.queue(as_json({"error": {"message": "no"}}, status=400))
    with meter.attribution("acme", tool="chat"), pytest.raises(openai.BadRequestError):
        model.invoke("Hi")
    assert recorded() == []


def test_a_run_that_never_ends_hides_no_call_after_it(provider: Any, meter: Any, recorded: Any) -> None:
    callback = TaximeterCallback(meter)
    provider.queue(as_json(ANSWER))
    plain = openai.OpenAI(api_key="k", base_url=provider.address)
    with meter.attribution("acme", tool="chat"):
        callback.on_chat_model_start({}, [], run_id=uuid.uuid4())
        asked: Any = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
        meter.wrap(plain).chat.completions.create(**asked)
    plain.close()
    assert [event["quantities"] for event in recorded()] == [pools(NAME)]


def test_an_answer_of_its_cache_is_free(provider: Any, meter: Any, recorded: Any) -> None:
    model = make(provider, TaximeterCallback(meter), cache=InMemoryCache())
    provider.queue(as_json(ANSWER))
    with meter.attribution("acme", tool="chat"):
        model.invoke("Hi")
        model.invoke("Hi")
    assert [event["quantities"] for event in recorded()] == [pools(NAME)]
