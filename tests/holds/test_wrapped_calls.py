"""``meter.wrap(client, hold=True)`` with real clients: held before, settled by the record, given back where there is none."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import anthropic
import boto3
import cohere
import openai
import pytest
import redis
from google import genai
from mistralai.client import Mistral

from adapter_fixtures import FIXTURES
from holds.conftest import open_holds, publish_prices, warm
from servers.provider import Replay, as_events, as_json, serving
from taximeter import CallHolds, ConfigurationError, InsufficientCredit, Meter, PriceMissingError, names
from taximeter_worker.flags.marks import HoldTerms
from waiting import eventually

MODEL = "m"
TOKEN = 100
"""Microdollars that a token of output costs; one of input costs one."""
ASKED: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": MODEL,
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": MODEL,
    "content": [{"type": "text", "text": "Hi"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 5, "output_tokens": 3},
}


@pytest.fixture
def provider() -> Iterator[Replay]:
    with serving(Replay()) as replay:
        yield replay


@pytest.fixture
def meter(
    make_meter: Callable[..., Meter], valkey_broker_url: str, redis_client: redis.Redis, fund: Callable[..., None]
) -> Meter:
    publish_prices(redis_client, input_tokens="1", output_tokens=str(TOKEN))
    fund("acme", "1.00")
    return make_meter(broker_url=valkey_broker_url)


@pytest.fixture
def events(meter: Meter, valkey_broker_url: str) -> Callable[[], list[dict[str, Any]]]:
    """What has arrived at the broker."""

    def take() -> list[dict[str, Any]]:
        meter.flush(timeout=30)
        with redis.Redis.from_url(valkey_broker_url) as client:
            bodies = iter(lambda: client.rpop(names.USAGE_QUEUE), None)
            return [event["data"] for body in bodies for event in json.loads(body)]

    return take


def chat(provider: Replay) -> openai.OpenAI:
    return openai.OpenAI(api_key="k", base_url=provider.address, max_retries=0)


@pytest.fixture
def plain(provider: Replay) -> Iterator[openai.OpenAI]:
    """A client that is not wrapped."""
    with chat(provider) as client:
        yield client


def held_for(redis_client: redis.Redis, event: dict[str, Any]) -> int:
    """Microdollars that the hold of a recorded usage holds until it is booked."""
    holds = open_holds(redis_client)
    assert holds.keys() == {event["hold"]}
    seconds, _ = redis_client.time()
    due = redis_client.zscore(names.holds_due_key("acme"), event["hold"])
    assert due > (seconds + 6 * 86_400) * 1000
    return holds[event["hold"]]


def test_the_requests_own_limit_is_held_and_the_record_settles_it(
    meter: Meter, plain: openai.OpenAI, provider: Replay, events: Any, redis_client: redis.Redis
):
    client = meter.wrap(plain, provider="p", hold=True)
    held = {}
    for name, limit in (("max_tokens", 100), ("max_completion_tokens", 300), (None, None)):
        provider.queue(as_json(ANSWER))
        with meter.attribution("acme", tool="chat"):
            client.chat.completions.create(**ASKED, **({name: limit} if name else {}))
        (event,) = events()
        held[limit] = held_for(redis_client, event)
        redis_client.delete(names.holds_key("acme"), names.holds_due_key("acme"))
        assert provider.requests[-1].body.get(name) == limit
    assert 100 * TOKEN < held[100] < 100 * TOKEN + 500  # the request's bytes, and what providers put around them
    assert 300 * TOKEN < held[300] < 300 * TOKEN + 500
    assert 4096 * TOKEN < held[None] < 4096 * TOKEN + 500


def _openai_stream(provider: Replay, wrap: Any) -> None:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    parts = [{**chunk, "choices": [{"index": 0, "delta": {"content": "Hi"}}]}]
    provider.queue(as_events([*parts, {**chunk, "choices": [], "usage": ANSWER["usage"]}], end="data: [DONE]\n\n"))
    with chat(provider) as client:
        list(wrap(client).chat.completions.create(**ASKED, max_tokens=100, stream=True))


def _openai_async(provider: Replay, wrap: Any) -> None:
    provider.queue(as_json(ANSWER))

    async def call() -> None:
        async with openai.AsyncOpenAI(api_key="k", base_url=provider.address) as client:
            await wrap(client).chat.completions.create(**ASKED, max_tokens=100)

    asyncio.run(call())


def _openai_responses(provider: Replay, wrap: Any) -> None:
    usage = {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}
    provider.queue(as_json({"id": "r", "object": "response", "model": MODEL, "output": [], "usage": usage}))
    with chat(provider) as client:
        wrap(client).responses.create(model=MODEL, input="Hi", max_output_tokens=100)


def _anthropic(provider: Replay, wrap: Any) -> None:
    provider.queue(as_json(MESSAGE))
    with anthropic.Anthropic(api_key="k", base_url=provider.address) as client:
        wrap(client).messages.create(**ASKED, max_tokens=100)


def _anthropic_stream(provider: Replay, wrap: Any) -> None:
    events = [
        {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ]
    provider.queue(as_events(events, named=True))
    with (
        anthropic.Anthropic(api_key="k", base_url=provider.address) as client,
        wrap(client).messages.stream(**ASKED, max_tokens=100) as stream,
    ):
        for _ in stream:
            pass


def _mistral(provider: Replay, wrap: Any) -> None:
    provider.queue(as_json(ANSWER))
    with Mistral("k", server_url=provider.address) as client:
        wrap(client).chat.complete(**ASKED, max_tokens=100)


def _cohere(provider: Replay, wrap: Any) -> None:
    provider.queue(as_json(FIXTURES["coh-billed"]["response"]))
    with cohere.ClientV2("k", base_url=provider.address) as client:
        wrap(client).chat(**ASKED, max_tokens=100)


def _google(provider: Replay, wrap: Any) -> None:
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 3, "totalTokenCount": 8}
    content = {"role": "model", "parts": [{"text": "Hi"}]}
    provider.queue(as_json({"candidates": [{"content": content}], "usageMetadata": usage}))
    options = genai.types.HttpOptions(base_url=provider.address)
    config = genai.types.GenerateContentConfig(max_output_tokens=50, candidate_count=2)
    with genai.Client(api_key="k", http_options=options) as client:
        wrapped = wrap(client)
        wrapped.models.generate_content(model=MODEL, contents="Hi", config=config)


def _bedrock(provider: Replay, wrap: Any) -> None:
    usage = {"inputTokens": 5, "outputTokens": 3, "totalTokens": 8}
    message = {"role": "assistant", "content": [{"text": "Hi"}]}
    answer = {"output": {"message": message}, "stopReason": "end_turn", "usage": usage, "metrics": {"latencyMs": 1}}
    provider.queue(as_json(answer))
    asked = {"messages": [{"role": "user", "content": [{"text": "Hi"}]}], "inferenceConfig": {"maxTokens": 100}}
    with contextlib.closing(_runtime(provider)) as client:
        wrap(client).converse(modelId=MODEL, **asked)


def _bedrock_invoke(provider: Replay, wrap: Any) -> None:
    provider.queue(as_json(MESSAGE))
    body = {"anthropic_version": "bedrock-2023-05-31", "messages": ASKED["messages"], "max_tokens": 100}
    with contextlib.closing(_runtime(provider)) as client:
        wrap(client).invoke_model(modelId=MODEL, body=json.dumps(body))


def _runtime(provider: Replay) -> Any:
    return boto3.client(
        "bedrock-runtime",
        region_name="eu-west-1",
        endpoint_url=provider.address,
        aws_access_key_id="k",
        aws_secret_access_key="s",
    )


CALLS = (
    _openai_stream,
    _openai_async,
    _openai_responses,
    _anthropic,
    _anthropic_stream,
    _mistral,
    _cohere,
    _google,
    _bedrock,
    _bedrock_invoke,
)


@pytest.mark.parametrize("call", CALLS, ids=[call.__name__.strip("_") for call in CALLS])
def test_every_library_holds_before_and_settles_after(
    call: Callable[..., None], meter: Meter, provider: Replay, events: Any, redis_client: redis.Redis
):
    with meter.attribution("acme", tool="chat"):
        call(provider, lambda client: meter.wrap(client, provider="p", hold=True))
    (event,) = events()
    assert 100 * TOKEN < held_for(redis_client, event) < 100 * TOKEN + 700
    assert event["quantities"]["output_tokens"] > 0


def test_a_call_that_is_not_affordable_is_not_made(
    meter: Meter, plain: openai.OpenAI, provider: Replay, redis_client: redis.Redis
):
    client = meter.wrap(plain, provider="p", hold=True)
    with meter.attribution("acme", tool="chat"):
        with pytest.raises(InsufficientCredit) as short:
            client.chat.completions.create(**ASKED, max_tokens=11_200)
        assert (short.value.workspace, short.value.available) == ("acme", Decimal("1.12"))
        with pytest.raises(PriceMissingError):
            client.chat.completions.create(**{**ASKED, "model": "unpriced"})
    assert provider.requests == []
    assert open_holds(redis_client) == {}


@pytest.mark.parametrize("answers", [1, 3])
def test_with_cap_the_limit_is_what_the_balance_affords(
    meter: Meter, plain: openai.OpenAI, provider: Replay, redis_client: redis.Redis, answers: int
):
    provider.queue(as_json(ANSWER))
    client = meter.wrap(plain, provider="p", hold=CallHolds(on_short="cap"))
    asked = {**ASKED, "max_tokens": 20_000, "n": answers}
    with meter.attribution("acme", tool="chat"):
        client.chat.completions.create(**asked)
    limit = provider.requests[0].body["max_tokens"]
    assert 11_190 <= limit * answers <= 11_200  # 1.12 USD, less the input
    assert asked["max_tokens"] == 20_000
    assert sum(open_holds(redis_client).values()) <= 1_120_000


def test_what_you_know_better_is_held_instead(
    meter: Meter, plain: openai.OpenAI, provider: Replay, events: Any, redis_client: redis.Redis
):
    provider.queue(as_json(ANSWER))
    holds = CallHolds(quantities=lambda asked: {"input_tokens": 7, "output_tokens": asked["max_tokens"]})
    with meter.attribution("acme", tool="chat"):
        meter.wrap(plain, provider="p", hold=holds).chat.completions.create(**ASKED, max_tokens=10)
    assert held_for(redis_client, *events()) == 7 + 10 * TOKEN


def test_a_failed_call_gives_its_hold_back(
    meter: Meter, plain: openai.OpenAI, provider: Replay, events: Any, redis_client: redis.Redis
):
    provider.queue(as_json({}, status=500))
    with meter.attribution("acme", tool="chat"), pytest.raises(openai.InternalServerError):
        meter.wrap(plain, provider="p", hold=True).chat.completions.create(**ASKED)
    assert open_holds(redis_client) == {}
    assert events() == []


def test_a_stream_that_is_left_settles_its_hold(
    meter: Meter, plain: openai.OpenAI, provider: Replay, events: Any, redis_client: redis.Redis
):
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    provider.queue(as_events([{**chunk, "choices": [{"index": 0, "delta": {"content": "Hi"}}]}]).hanging())
    with meter.attribution("acme", tool="chat"):
        stream = meter.wrap(plain, provider="p", hold=True).chat.completions.create(**ASKED, stream=True)
        next(stream)
        assert len(open_holds(redis_client)) == 1
        stream.close()
    (event,) = events()
    assert held_for(redis_client, event)
    assert "stream_incomplete" in event["metadata"]["flags"]


def test_a_cancelled_call_gives_its_hold_back(meter: Meter, provider: Replay, redis_client: redis.Redis):
    provider.queue(as_json(ANSWER).hanging())

    async def cancel() -> None:
        async with openai.AsyncOpenAI(api_key="k", base_url=provider.address) as plain:
            client = meter.wrap(plain, provider="p", hold=True)
            with meter.attribution("acme", tool="chat"):
                task = asyncio.create_task(client.chat.completions.create(**ASKED))
            await asyncio.to_thread(eventually, lambda: provider.requests)
            assert len(open_holds(redis_client)) == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancel())
    assert open_holds(redis_client) == {}


def test_a_call_that_is_never_made_gives_its_hold_back(
    meter: Meter, plain: openai.OpenAI, provider: Replay, redis_client: redis.Redis
):
    """A stream's manager that nobody enters: the keeper releases the hold at its next look, a third of its life away."""
    warm(redis_client, terms=HoldTerms(seconds_max=6))
    with meter.attribution("acme", tool="chat"):
        manager = meter.wrap(plain, provider="p", hold=True).chat.completions.stream(**ASKED)
    assert len(open_holds(redis_client)) == 1
    del manager
    eventually(lambda: open_holds(redis_client) == {})
    assert provider.requests == []


def test_a_tracked_call_is_held_by_an_amount_or_by_quantities(meter: Meter, events: Any, redis_client: redis.Redis):
    most = {"input_tokens": 50, "output_tokens": 10}
    for hold, microdollars in (("0.05", 50_000), (most, 50 + 10 * TOKEN)):
        with meter.track("acme", tool="chat", provider="p", model=MODEL, hold=hold) as call:
            assert sum(open_holds(redis_client).values()) == microdollars
            call.add(input_tokens=1)
        (event,) = events()
        assert held_for(redis_client, event) == microdollars
        redis_client.delete(names.holds_key("acme"), names.holds_due_key("acme"))
    with pytest.raises(ZeroDivisionError), meter.track("acme", tool="chat", hold="0.05"):
        raise ZeroDivisionError
    assert (open_holds(redis_client), events()) == ({}, [])
    with pytest.raises(InsufficientCredit), meter.track("acme", tool="chat", hold="1.13"):
        raise AssertionError


@pytest.mark.parametrize("hold", ["0.05", 1, {"output_tokens": 1}])
def test_a_hold_that_makes_no_sense_is_refused(meter: Meter, plain: openai.OpenAI, provider: Replay, hold: Any):
    with pytest.raises(ConfigurationError):
        meter.wrap(plain, hold=hold)
    with pytest.raises(ConfigurationError):
        CallHolds(on_short=hold)
