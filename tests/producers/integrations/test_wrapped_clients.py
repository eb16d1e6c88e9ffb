"""What a wrapped client keeps, checks, refuses and records, with the providers' own libraries."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from provider_server import FIXTURES, Provider, blocks
from taximeter import AIDisabled, ConfigurationError, NoAttributionError, NotMeteredError
from taximeter.calls.seams import Seam
from taximeter.testing import MemoryMeter

TEXT: Any = [{"role": "user", "content": "hi"}]
CHAT, STREAM = FIXTURES["oai-chat-cached"], FIXTURES["oai-chat-stream"]
MESSAGES = FIXTURES["ant-stream-websearch-grows"]
POOLS = {"input_tokens": 86, "cached_input_tokens": 1920, "output_tokens": 300}
STREAM_POOLS = {"input_tokens": 1024, "cached_input_tokens": 1024, "output_tokens": 64}
ANTHROPIC_POOLS = {"input_tokens": 10682, "output_tokens": 510}


def new(remote: Provider, kind: Any = openai.OpenAI, **settings: Any) -> Any:
    library = anthropic if kind.__module__.startswith("anthropic") else openai
    web = library.DefaultAsyncHttpxClient if "Async" in kind.__name__ else library.DefaultHttpxClient
    return kind(base_url=remote.url, api_key="key", http_client=web(verify=False), **{"max_retries": 0, **settings})


def pools(meter: MemoryMeter) -> list[dict[str, Any]]:
    return [usage["data"]["quantities"] for usage in meter.usages]


def test_a_call_outside_of_any_attribution_is_not_made(remote: Provider, meter: MemoryMeter) -> None:
    remote.answers(CHAT)
    with meter.wrap(new(remote)) as client:
        with pytest.raises(NoAttributionError, match=r"meter\.attribution"):
            client.chat.completions.create(model="gpt-4o", messages=TEXT)
        assert remote.asked == []
        passing = meter.wrap(client, outside="pass")
        assert passing.chat.completions.create(model="gpt-4o", messages=TEXT).id == CHAT["response"]["id"]
        assert meter.usages == []
        mine = meter.wrap(client, attribution=meter.attribution("acme", tool="nightly"))
        mine.chat.completions.create(model="gpt-4o", messages=TEXT)
        assert [usage["data"]["tool"] for usage in meter.usages] == ["nightly"]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_workspace_without_credit_is_told_before_the_call(is_async: bool, remote: Provider, tmp_path: Any) -> None:
    meter = MemoryMeter(top_up_url="https://pay.example/{workspace}")
    remote.answers(CHAT)
    meter.set_status("acme", "insufficient")
    client = meter.wrap(new(remote, openai.AsyncOpenAI if is_async else openai.OpenAI))

    async def call() -> None:
        with meter.attribution("acme", tool="chat"), pytest.raises(AIDisabled, match="top up at https") as told:
            await client.chat.completions.create(model="gpt-4o", messages=TEXT)
        assert (told.value.workspace, told.value.status) == ("acme", "insufficient")
        assert told.value.top_up_url == "https://pay.example/acme"
        again = pickle.loads(pickle.dumps(told.value))
        assert (str(again), again.__dict__) == (str(told.value), told.value.__dict__)
        await client.close() if is_async else client.close()

    asyncio.run(call())
    assert (remote.asked, meter.usages) == ([], [])


def test_a_proxy_passes_for_its_client(remote: Provider, meter: MemoryMeter) -> None:
    remote.answers(CHAT)
    bare = new(remote, timeout=7)
    with meter.wrap(bare) as client:
        assert isinstance(client, openai.OpenAI)
        assert client.timeout == 7
        assert client.chat.completions is client.chat.completions
        assert type(bare).__name__ in repr(client)
        with pytest.raises(AttributeError, match="nothing_there"):
            _ = client.nothing_there
        with pytest.raises(Exception) as bares:
            pickle.dumps(bare)
        with pytest.raises(type(bares.value)) as ours:
            pickle.dumps(client)
        assert str(ours.value) == str(bares.value)
        copies = [client.with_options(timeout=3), client.copy(), copy.copy(client)]
        with meter.attribution("acme", tool="chat"):
            for one in copies:
                assert isinstance(one, openai.OpenAI)
                one.chat.completions.create(model="gpt-4o", messages=TEXT)
        assert pools(meter) == [POOLS] * 3
        client.timeout = 9
        assert bare.timeout == 9
        assert not hasattr(type(bare).chat, "_taximeter_node")


def test_raw_and_streaming_responses_are_metered(remote: Provider, meter: MemoryMeter) -> None:
    remote.answers(CHAT)
    with meter.wrap(new(remote)) as client, meter.attribution("acme", tool="chat"):
        raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=TEXT)
        assert raw.headers["content-type"] == "application/json"
        assert raw.parse().usage.completion_tokens == 300
        again = client.with_raw_response.chat.completions.create(model="gpt-4o", messages=TEXT)
        assert again.parse() is again.parse()
        with client.chat.completions.with_streaming_response.create(model="gpt-4o", messages=TEXT) as response:
            assert b"".join(response.iter_bytes()) == remote.answer.pieces[0]
        assert pools(meter) == [POOLS] * 3
        meter.clear()
        remote.answers(STREAM)
        raw = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=TEXT, stream=True)
        assert [bool(chunk.usage) for chunk in raw.parse()] == [False] * 4
        with client.chat.completions.with_streaming_response.create(
            model="gpt-4o", messages=TEXT, stream=True
        ) as response:
            lines = [line for line in response.iter_lines() if line]
        assert len(lines) == 5
        assert pools(meter) == [STREAM_POOLS] * 2


def test_usage_is_asked_for_and_hidden_from_who_did_not_ask(remote: Provider, meter: MemoryMeter) -> None:
    remote.answers(STREAM)
    with meter.wrap(new(remote)) as client, meter.attribution("acme", tool="chat"):
        with client.chat.completions.create(model="gpt-4o", messages=TEXT, stream=True) as stream:
            assert isinstance(stream, openai.Stream)
            assert type(stream) is openai.Stream
            assert len(list(stream)) == 4
        asking: Any = {"include_usage": True, "include_obfuscation": False}
        stream = client.chat.completions.create(model="gpt-4o", messages=TEXT, stream=True, stream_options=asking)
        assert [bool(chunk.usage) for chunk in stream] == [False, False, False, False, True]
        with client.chat.completions.stream(model="gpt-4o", messages=TEXT) as helper:
            assert helper.get_final_completion().choices[0].message.content == "Hello"
    assert [asked["stream_options"] for asked in remote.asked] == [
        {"include_usage": True},
        asking,
        {"include_usage": True},
    ]
    assert pools(meter) == [STREAM_POOLS] * 3


def test_a_stream_that_is_dropped_is_recorded_at_once(remote: Provider, meter: MemoryMeter) -> None:
    remote.answers(STREAM)
    with meter.wrap(new(remote)) as client, meter.attribution("acme", tool="chat"):
        for _ in client.chat.completions.create(model="gpt-4o", messages=TEXT, stream=True):
            break
        assert pools(meter) == [{"requests": 1}]
        assert meter.usages[0]["data"]["metadata"]["flags"] == ["usage_missing", "stream_incomplete"]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_stream_that_is_left_at_its_end_is_recorded_whole(
    is_async: bool, remote: Provider, meter: MemoryMeter
) -> None:
    async def read() -> None:
        async with meter.wrap(new(remote, openai.AsyncOpenAI)) as client:
            stream = await client.chat.completions.create(model="gpt-4o", messages=TEXT, stream=True)
            async for chunk in stream:
                if chunk.choices[0].finish_reason:
                    break
            await stream.close()

    remote.answers(STREAM)
    with meter.attribution("acme", tool="chat"):
        if is_async:
            asyncio.run(read())
        else:
            with meter.wrap(new(remote)) as client:
                for chunk in client.chat.completions.create(model="gpt-4o", messages=TEXT, stream=True):
                    if chunk.choices[0].finish_reason:
                        break
    assert pools(meter) == [STREAM_POOLS]
    assert "flags" not in meter.usages[0]["data"]["metadata"]


@pytest.mark.parametrize("breaks_off", [False, True])
def test_an_end_whose_usage_never_comes_is_shown(breaks_off: bool, remote: Provider, meter: MemoryMeter) -> None:
    remote.streams(blocks(STREAM)[:-2], breaks_off=breaks_off)
    ends = []
    with meter.wrap(new(remote)) as client, meter.attribution("acme", tool="chat"):
        stream = client.chat.completions.create(model="gpt-4o", messages=TEXT, stream=True)
        with suppress(httpx2.HTTPError, openai.APIError):
            for chunk in stream:
                ends.append(chunk.choices[0].finish_reason)  # noqa: PERF401 - kept where the stream breaks
    assert ends[-1] == "stop"
    assert pools(meter) == [{"requests": 1}]
    assert meter.usages[0]["data"]["metadata"]["flags"] == ["usage_missing", "stream_incomplete"]


def test_choices_that_end_one_after_the_other_are_shown_as_they_come(remote: Provider, meter: MemoryMeter) -> None:
    first, second, *_ = STREAM["events"]
    chunks = [{**first, "choices": [{"index": n, "delta": {}, "finish_reason": "stop"}]} for n in (0, 1)]
    last = STREAM["events"][-1]
    remote.streams(blocks({**STREAM, "events": [chunks[0], second, chunks[1], last]}))
    remote.gate = threading.Event()
    with meter.wrap(new(remote)) as client, meter.attribution("acme", tool="chat"):
        stream = client.chat.completions.create(model="gpt-4o", messages=TEXT, stream=True, n=2)
        assert next(stream).choices[0].finish_reason == "stop"
        remote.gate.set()
        assert len(list(stream)) == 2
    assert pools(meter) == [STREAM_POOLS]


def test_helpers_of_anthropic_are_metered(remote: Provider, meter: MemoryMeter) -> None:
    remote.answers(MESSAGES)
    asked: Any = {"model": "claude-sonnet-4-6", "max_tokens": 9, "messages": TEXT}
    with meter.wrap(new(remote, anthropic.Anthropic)) as client, meter.attribution("acme", tool="chat"):
        assert isinstance(client, anthropic.Anthropic)
        with client.messages.stream(**asked) as stream:
            assert list(stream.text_stream) == []
            assert stream.get_final_message().usage.output_tokens == 510
        with client.beta.messages.stream(**asked) as stream:
            stream.until_done()
        with client.messages.with_streaming_response.create(**asked, stream=True) as response:
            assert list(response.iter_lines())
        with client.messages.stream(**asked) as stream:
            next(stream)
    assert pools(meter) == [ANTHROPIC_POOLS] * 3 + [{"input_tokens": 2679, "output_tokens": 3}]
    assert "output_lower_bound" in meter.usages[3]["data"]["metadata"]["flags"]


def test_async_helpers_are_metered_and_a_cancelled_stream_is_a_lower_bound(
    remote: Provider, meter: MemoryMeter
) -> None:
    asked: Any = {"model": "claude-sonnet-4-6", "max_tokens": 9, "messages": TEXT}

    async def calls() -> None:
        async with meter.wrap(new(remote, anthropic.AsyncAnthropic)) as client:
            remote.answers(MESSAGES)
            async with client.messages.stream(**asked) as stream:
                assert (await stream.get_final_message()).usage.output_tokens == 510
            remote.streams(blocks(MESSAGES))
            remote.gate = threading.Event()
            begun = asyncio.Event()

            async def consume() -> None:
                async for _ in await client.messages.create(**asked, stream=True):
                    begun.set()

            task = asyncio.create_task(consume())
            await begun.wait()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            remote.gate.set()
            del task

    with meter.attribution("acme", tool="chat"):
        asyncio.run(calls())
    assert pools(meter)[0] == ANTHROPIC_POOLS
    assert len(meter.usages) == 2
    assert meter.usages[1]["data"]["quantities"]["input_tokens"] in {2679, 10682}


def test_retries_are_one_call_and_a_failed_call_is_none(remote: Provider, meter: MemoryMeter) -> None:
    remote.answers(CHAT)
    remote.failures = 2
    with meter.wrap(new(remote, max_retries=2)) as client, meter.attribution("acme", tool="chat"):
        client.chat.completions.create(model="gpt-4o", messages=TEXT)
        assert (len(remote.asked), pools(meter)) == (3, [POOLS])
        remote.failures = 3
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(model="gpt-4o", messages=TEXT)
    assert pools(meter) == [POOLS]


def test_what_cannot_be_followed_is_refused_before_the_call(remote: Provider, meter: MemoryMeter) -> None:
    with meter.wrap(new(remote)) as client, meter.attribution("acme", tool="chat"):
        refused: list[Any] = [
            lambda: client.videos.create(prompt="a cat"),
            client.batches.create,
            lambda: client.responses.create(model="gpt-5", input="hi", background=True),
            lambda: client.audio.transcriptions.create(model="whisper-1", file=b"RIFF", response_format="srt"),
            lambda: client.post("/chat/completions", cast_to=object),
            lambda: client.beta.threads.runs.create("thread"),
        ]
        for call in refused:
            with pytest.raises(NotMeteredError, match="was not called"):
                call()
    with (
        meter.wrap(new(remote, anthropic.Anthropic)) as claude,
        meter.attribution("acme", tool="chat"),
        pytest.raises(NotMeteredError, match=r"beta\.messages\.create"),
    ):
        claude.beta.messages.tool_runner(model="m", max_tokens=1, messages=TEXT, tools=[])
    assert (remote.asked, meter.usages) == ([], [])
    with pytest.raises(ConfigurationError, match=r"builtins\.dict is not a client"):
        meter.wrap({})


def test_seams_within_each_other_record_once(remote: Provider, meter: MemoryMeter) -> None:
    remote.answers(CHAT)
    with meter.wrap(new(remote)) as client, meter.attribution("acme", tool="chat"):
        with Seam():
            client.chat.completions.create(model="gpt-4o", messages=TEXT)
        assert meter.usages == []
        twice = meter.wrap(client)
        twice.chat.completions.create(model="gpt-4o", messages=TEXT)
        assert pools(meter) == [POOLS]


def test_a_usage_that_cannot_be_read_is_recorded_as_a_request(
    remote: Provider, meter: MemoryMeter, caplog: pytest.LogCaptureFixture
) -> None:
    response = {**CHAT["response"], "usage": {**CHAT["response"]["usage"], "strange_tokens": 7}}
    remote.answers({"shape": "openai.chat", "response": response})
    with meter.wrap(new(remote)) as client, meter.attribution("acme", tool="chat"):
        assert client.chat.completions.create(model="gpt-4o", messages=TEXT).id == response["id"]
    assert pools(meter) == [{"requests": 1}]
    assert meter.usages[0]["data"]["metadata"]["flags"] == ["usage_unreadable"]
    assert "strange_tokens" in meter.usages[0]["data"]["metadata"]["usage_error"]


def test_threads_and_tasks_pay_for_themselves(remote: Provider, meter: MemoryMeter) -> None:
    remote.answers(CHAT)
    with meter.wrap(new(remote)) as client, ThreadPoolExecutor(4) as executor:

        def call() -> None:
            client.chat.completions.create(model="gpt-4o", messages=TEXT)

        with meter.attribution("other", tool="chat"):
            with pytest.raises(NoAttributionError):
                executor.submit(call).result()
            mine = [meter.attribution(f"w{number % 3}", tool="chat", user=f"u{number}") for number in range(12)]
            for future in [executor.submit(one(call)) for one in mine]:
                future.result()

        async def task(number: int) -> None:
            with meter.attribution(f"t{number}", tool="chat"):
                await asyncio.sleep(0)
                await asyncio.to_thread(call)

        async def tasks() -> None:
            await asyncio.gather(*(task(number) for number in range(4)))

        asyncio.run(tasks())
    paid = sorted((usage["subject"], usage["data"].get("user")) for usage in meter.usages)
    assert paid == sorted([(f"w{n % 3}", f"u{n}") for n in range(12)] + [(f"t{n}", None) for n in range(4)])


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://api.deepseek.com", "deepseek"),
        ("https://api.x.ai/v1", "x-ai"),
        ("https://mine.openai.azure.com/openai/v1", "azure"),
        ("https://notopenrouter.ai/v1", "openai"),
    ],
)
def test_the_address_says_who_answers(url: str, provider: str) -> None:
    from taximeter.integrations.openai import provider_of

    with openai.OpenAI(base_url=url, api_key="key") as client:
        assert provider_of(client) == provider
    with openai.AzureOpenAI(azure_endpoint="https://a.example", api_version="1", api_key="key") as client:
        assert provider_of(client) == "azure"
