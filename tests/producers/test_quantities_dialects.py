"""Every dialect's usage through every function: the right pools or an error, never a count that is given away."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter import InvalidEventError, quantities

Pools = dict[str, Any]
SAMPLES: dict[str, tuple[Any, dict[str, Any], Pools]] = {
    "openai": (
        quantities.openai_chat,
        {
            "prompt_tokens": 2006,
            "completion_tokens": 300,
            "total_tokens": 2306,
            "prompt_tokens_details": {"cached_tokens": 1920, "cache_write_tokens": 6},
            "completion_tokens_details": {"reasoning_tokens": 192},
        },
        {
            "input_tokens": 80,
            "cached_input_tokens": 1920,
            "cache_write_tokens": 6,
            "output_tokens": 108,
            "reasoning_tokens": 192,
        },
    ),
    "kimi": (
        quantities.openai_chat,
        {"prompt_tokens": 19, "completion_tokens": 13, "total_tokens": 32, "cached_tokens": 12},
        {"input_tokens": 7, "cached_input_tokens": 12, "output_tokens": 13},
    ),
    "deepseek": (
        quantities.openai_chat,
        {
            "prompt_tokens": 1000,
            "completion_tokens": 50,
            "total_tokens": 1050,
            "prompt_tokens_details": {"cached_tokens": 900},
            "prompt_cache_hit_tokens": 900,
            "prompt_cache_miss_tokens": 100,
        },
        {"input_tokens": 100, "cached_input_tokens": 900, "output_tokens": 50},
    ),
    "xai": (
        quantities.openai_chat,
        {
            "prompt_tokens": 32,
            "completion_tokens": 9,
            "total_tokens": 135,
            "prompt_tokens_details": {"text_tokens": 32, "cached_tokens": 6},
            "completion_tokens_details": {"reasoning_tokens": 94},
        },
        {"input_tokens": 26, "cached_input_tokens": 6, "output_tokens": 9, "reasoning_tokens": 94},
    ),
    "anthropic_through_a_gateway": (
        quantities.openai_chat,
        {
            "prompt_tokens": 180,
            "completion_tokens": 426,
            "total_tokens": 737,
            "prompt_tokens_details": {"cached_tokens": 131},
        },
        {"input_tokens": 180, "cached_input_tokens": 131, "output_tokens": 426},
    ),
    "litellm": (
        quantities.litellm,
        {
            "prompt_tokens": 1752,
            "completion_tokens": 832,
            "total_tokens": 2584,
            "prompt_tokens_details": {
                "cached_tokens": 1490,
                "cache_write_tokens": 258,
                "cache_creation_tokens": 258,
                "text_tokens": 4,
                "cache_creation_token_details": {"ephemeral_5m_input_tokens": 158, "ephemeral_1h_input_tokens": 100},
            },
            "cache_creation_input_tokens": 258,
            "cache_read_input_tokens": 1490,
        },
        {
            "input_tokens": 4,
            "cached_input_tokens": 1490,
            "cache_write_tokens": 158,
            "cache_write_1h_tokens": 100,
            "output_tokens": 832,
        },
    ),
    "langchain": (
        quantities.langchain,
        {
            "input_tokens": 4096,
            "output_tokens": 503,
            "total_tokens": 4599,
            "input_token_details": {"cache_read": 1800, "cache_creation": 248},
            "output_token_details": {"reasoning": 3},
        },
        {
            "input_tokens": 2048,
            "cached_input_tokens": 1800,
            "cache_write_tokens": 248,
            "output_tokens": 500,
            "reasoning_tokens": 3,
        },
    ),
    "bedrock": (
        quantities.bedrock,
        {
            "inputTokens": 4,
            "outputTokens": 832,
            "totalTokens": 2584,
            "cacheReadInputTokens": 1490,
            "cacheWriteInputTokens": 258,
        },
        {"input_tokens": 4, "cached_input_tokens": 1490, "cache_write_tokens": 258, "output_tokens": 832},
    ),
    "pydantic_ai": (
        quantities.pydantic_ai,
        {
            "input_tokens": 500,
            "output_tokens": 60,
            "cache_read_tokens": 300,
            "cache_write_tokens": 50,
            "details": {"reasoning_tokens": 20, "cached_tokens": 300},
        },
        {
            "input_tokens": 150,
            "cached_input_tokens": 300,
            "cache_write_tokens": 50,
            "output_tokens": 40,
            "reasoning_tokens": 20,
        },
    ),
    "perplexity": (
        quantities.perplexity,
        {
            "prompt_tokens": 2000,
            "completion_tokens": 904,
            "total_tokens": 2904,
            "reasoning_tokens": 4096,
            "citation_tokens": 700,
            "num_search_queries": 18,
        },
        {"input_tokens": 2000, "output_tokens": 904, "reasoning_tokens": 4096, "output_citation_tokens": 700},
    ),
    "mistral": (
        quantities.mistral,
        {
            "prompt_tokens": 188,
            "completion_tokens": 55,
            "total_tokens": 7355,
            "connector_tokens": 7112,
            "prompt_audio_seconds": 12,
        },
        {"input_tokens": 7300, "output_tokens": 55, "seconds": 12},
    ),
    "cohere": (
        quantities.cohere,
        {
            "billed_units": {"input_tokens": 5.0, "output_tokens": 418.0},
            "tokens": {"input_tokens": 71.0, "output_tokens": 418.0},
        },
        {"input_tokens": 5, "output_tokens": 418},
    ),
    "anthropic": (
        quantities.anthropic,
        {
            "input_tokens": 21,
            "output_tokens": 503,
            "cache_creation_input_tokens": 556,
            "cache_read_input_tokens": 30433,
            "output_tokens_details": {"thinking_tokens": 400},
            "iterations": None,
        },
        {
            "input_tokens": 21,
            "cached_input_tokens": 30433,
            "cache_write_tokens": 556,
            "output_tokens": 103,
            "reasoning_tokens": 400,
        },
    ),
    "gemini": (
        quantities.gemini,
        {
            "promptTokenCount": 100,
            "cachedContentTokenCount": 40,
            "candidatesTokenCount": 20,
            "thoughtsTokenCount": 30,
            "toolUsePromptTokenCount": 5,
            "totalTokenCount": 155,
        },
        {"input_tokens": 65, "cached_input_tokens": 40, "output_tokens": 20, "reasoning_tokens": 30},
    ),
    "otel": (
        quantities.otel,
        {
            "gen_ai.usage.input_tokens": 1500,
            "gen_ai.usage.output_tokens": 800,
            "gen_ai.usage.cache_read.input_tokens": 700,
            "gen_ai.usage.cache_creation.input_tokens": 100,
            "gen_ai.usage.reasoning.output_tokens": 300,
            "gen_ai.request.max_tokens": 4000,
        },
        {
            "input_tokens": 700,
            "cached_input_tokens": 700,
            "cache_write_tokens": 100,
            "output_tokens": 500,
            "reasoning_tokens": 300,
        },
    ),
}
FUNCTIONS = [
    quantities.openai_chat,
    quantities.openai_responses,
    quantities.openai_embeddings,
    quantities.openai_transcription,
    quantities.openai_speech,
    quantities.anthropic,
    quantities.gemini,
    quantities.bedrock,
    quantities.cohere,
    quantities.mistral,
    quantities.perplexity,
    quantities.litellm,
    quantities.langchain,
    quantities.pydantic_ai,
    quantities.otel,
]


@pytest.mark.parametrize("name", SAMPLES)
def test_each_dialect_has_its_function(name: str) -> None:
    function, usage, pools = SAMPLES[name]
    assert function(usage) == pools


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
@pytest.mark.parametrize("name", SAMPLES)
def test_another_function_gives_the_same_pools_or_rejects_the_usage(name: str, function: Any) -> None:
    _, usage, pools = SAMPLES[name]
    with contextlib.suppress(InvalidEventError):
        assert function(usage) == pools


def places(usage: dict[str, Any]) -> list[list[str]]:
    """The usage itself and every object within it that holds counts."""
    return [[], *([name] for name, value in usage.items() if isinstance(value, dict) and name != "details")]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_count_that_nobody_knows_is_rejected_by_its_name_wherever_it_stands(name: str) -> None:
    function, usage, pools = SAMPLES[name]
    for place in places(usage):
        for value, mystery in ((7, "mystery_tokens"), ({"inner": 7}, "mystery_tokens_details"), (0, "mystery_tokens")):
            copy = json.loads(json.dumps(usage))
            inner = copy
            for step in place:
                inner = inner[step]
            inner["gen_ai.usage." + mystery if name == "otel" else mystery] = value
            if value == 0:
                assert function(copy) == pools
                continue
            with pytest.raises(InvalidEventError, match=mystery):
                function(copy)


@pytest.mark.parametrize("more", [-1, 1, 405, 10**6])
@pytest.mark.parametrize(
    "name",
    [
        name
        for name, (_, usage, _) in SAMPLES.items()
        if {"total_tokens", "totalTokens", "totalTokenCount"} & set(usage)
    ],
)
def test_a_total_that_is_not_the_sum_is_rejected(name: str, more: int) -> None:
    function, usage, _ = SAMPLES[name]
    (total,) = {"total_tokens", "totalTokens", "totalTokenCount"} & set(usage)
    with pytest.raises(
        InvalidEventError, match=rf"{total}: is {usage[total] + more}, which is not (the|a) sum|less than .*reasoning"
    ):
        function({**usage, total: usage[total] + more})


def test_responses_and_embeddings_have_totals_too() -> None:
    for function, usage in (
        (quantities.openai_responses, {"input_tokens": 9, "output_tokens": 2, "total_tokens": 12}),
        (quantities.openai_embeddings, {"prompt_tokens": 9, "total_tokens": 12}),
        (quantities.openai_speech, {"input_tokens": 9, "output_tokens": 2, "total_tokens": 12}),
    ):
        with pytest.raises(InvalidEventError, match="is 12, which is not the sum"):
            function(usage)


def test_a_gap_of_google_is_thoughts_and_of_anybody_else_an_error() -> None:
    usage = {"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623}
    assert quantities.openai_chat(usage, provider="google") == {
        "input_tokens": 20,
        "output_tokens": 198,
        "reasoning_tokens": 405,
    }
    for provider in (None, "openai", "deepseek"):
        with pytest.raises(InvalidEventError, match="623"):
            quantities.openai_chat(usage, provider=provider)


def test_two_names_of_one_number_must_agree() -> None:
    usage = {"prompt_tokens": 30, "completion_tokens": 1, "cached_tokens": 12}
    for other, expected in ((12, 18), (0, 18), (None, 18)):
        pools = quantities.openai_chat({**usage, "prompt_tokens_details": {"cached_tokens": other}})
        assert pools == {"input_tokens": expected, "cached_input_tokens": 12, "output_tokens": 1}
    with pytest.raises(InvalidEventError, match="they mean the same"):
        quantities.openai_chat({**usage, "prompt_tokens_details": {"cached_tokens": 11}})


def iteration(kind: str, tokens: tuple[int, int], model: str | None = None) -> dict[str, Any]:
    return {"type": kind, "input_tokens": tokens[0], "output_tokens": tokens[1], "model": model}


def test_compactions_of_a_message_count() -> None:
    usage = {
        "input_tokens": 23_000,
        "output_tokens": 1_000,
        "iterations": [iteration("compaction", (180_000, 3_500)), iteration("message", (23_000, 1_000))],
    }
    assert quantities.anthropic(usage) == {"input_tokens": 203_000, "output_tokens": 4_500}
    usage["iterations"].append(iteration("message", (2_000, 10)))
    with pytest.raises(InvalidEventError, match="add up to"):
        quantities.anthropic(usage)
    usage |= {"input_tokens": 25_000, "output_tokens": 1_010}
    assert quantities.anthropic(usage) == {"input_tokens": 205_000, "output_tokens": 4_510}


def test_lifetimes_of_the_whole_stay_when_a_compaction_is_added() -> None:
    written = {"cache_creation_input_tokens": 100, "cache_creation": {"ephemeral_1h_input_tokens": 100}}
    usage = {
        "input_tokens": 10,
        "output_tokens": 5,
        **written,
        "iterations": [
            iteration("compaction", (1_000, 50)),
            {**iteration("message", (10, 5)), "cache_creation_input_tokens": 100},
        ],
    }
    assert quantities.anthropic(usage) == {"input_tokens": 1_010, "cache_write_1h_tokens": 100, "output_tokens": 55}


def test_another_models_iterations_are_parts_of_their_own() -> None:
    usage = {
        "input_tokens": 412,
        "output_tokens": 531,
        "iterations": [
            iteration("message", (300, 300)),
            iteration("advisor_message", (800, 1_600), "claude-opus-4-8"),
            iteration("advisor_message", (23, 12), "claude-opus-4-8"),
            iteration("compaction", (50, 6)),
            iteration("message", (112, 231)),
        ],
    }
    with pytest.raises(InvalidEventError, match=r"claude-opus-4-8 was billed too; use read\(\)"):
        quantities.anthropic(usage)
    reading = quantities.read("anthropic.messages", {"id": "msg_1", "model": "claude-sonnet-4-6", "usage": usage})
    assert reading.parts == (
        ("claude-sonnet-4-6", {"input_tokens": 462, "output_tokens": 537}, ""),
        ("claude-opus-4-8", {"input_tokens": 823, "output_tokens": 1_612}, ":advisor:1"),
    )
    assert (reading.flags, reading.request_id) == (("multi_model",), "msg_1")


def test_a_declined_model_of_a_fallback_is_billed_beside_the_one_that_served() -> None:
    usage = {
        "input_tokens": 100,
        "output_tokens": 40,
        "iterations": [
            iteration("message", (100, 3), "claude-opus-5"),
            iteration("fallback_message", (100, 40), "claude-sonnet-5"),
        ],
    }
    reading = quantities.read("anthropic.messages", {"model": "claude-sonnet-5", "usage": usage})
    assert [(part.model, part.pools) for part in reading.parts] == [
        ("claude-sonnet-5", {"input_tokens": 100, "output_tokens": 40}),
        ("claude-opus-5", {"input_tokens": 100, "output_tokens": 3}),
    ]


def test_openais_models_on_bedrock_count_the_cache_within_the_input() -> None:
    usage = {"inputTokens": 100, "outputTokens": 10, "totalTokens": 110, "cacheReadInputTokens": 60}
    within = {"input_tokens": 40, "cached_input_tokens": 60, "output_tokens": 10}
    assert quantities.bedrock(usage, model="openai.gpt-oss-120b-1:0") == within
    assert quantities.bedrock(usage) == within, "the total tells"
    del usage["totalTokens"]
    assert quantities.bedrock(usage, model="openai.gpt-oss-120b-1:0") == within
    assert quantities.bedrock(usage, model="amazon.nova-pro-v1:0")["input_tokens"] == 100


@pytest.mark.parametrize(
    ("seconds", "expected"), [(27.0, "27"), (4.5, "4.5"), (26.40999984741211, "26.41"), (0.1, "0.1")]
)
def test_durations_are_exact_to_the_microsecond(seconds: float, expected: str) -> None:
    pools = quantities.openai_transcription({"type": "duration", "seconds": seconds})
    assert str(pools["seconds"]) == expected


def test_a_stream_that_broke_off_is_the_least_that_was_consumed() -> None:
    start = {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 25, "output_tokens": 1}}}
    reading = quantities.read("anthropic.messages", [start], model="claude-sonnet-4-5")
    assert reading.parts == (("claude-sonnet-4-5", {"input_tokens": 25, "output_tokens": 1}, ""),)
    assert reading.flags == ("stream_incomplete", "output_lower_bound")
    assert quantities.read("openai.chat", []).flags == ("usage_missing", "stream_incomplete")


def test_a_whole_response_without_usage_is_missing_and_not_free() -> None:
    for dialect in quantities.DIALECTS:
        reading = quantities.read(dialect, {"id": "x", "model": "m"})
        assert (reading.parts[0].pools, reading.flags) == ({}, ("usage_missing",)), dialect


def test_a_dialect_that_is_not_known_is_named_beside_the_known_ones() -> None:
    with pytest.raises(InvalidEventError, match=r"'openai.chats' is not known; use one of openai.chat, "):
        quantities.read("openai.chats", {})


chats = st.tuples(*[st.integers(0, 1000)] * 5)


@given(chats, st.booleans(), st.booleans())
def test_the_total_decides_and_nothing_is_lost(
    counts: tuple[int, ...], cache_beside: bool, reasoning_beside: bool
) -> None:
    text, cached, written, said, reasoning = counts
    prompt = text + (0 if cache_beside else cached + written)
    answer = said + (0 if reasoning_beside else reasoning)
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": text + cached + written + said + reasoning,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }
    pools = quantities.openai_chat(usage)
    assert sum(pools.values()) == usage["total_tokens"]
    assert pools.get("cached_input_tokens", 0) == cached
    assert pools.get("cache_write_tokens", 0) == written
    assert pools.get("reasoning_tokens", 0) == reasoning


class WithExtras:
    """As pydantic keeps members that a class does not declare; mistralai's models keep them among the others."""

    __slots__ = ("__dict__", "_extra")

    def __init__(self, declared: dict[str, Any], extra: dict[str, Any], inside: bool) -> None:
        self.__dict__.update({**declared, "_private_tokens": 7})
        self._extra = {} if inside else extra
        if inside:
            self.__dict__["__pydantic_extra__"] = extra

    @property
    def model_extra(self) -> dict[str, Any]:
        return self._extra


@pytest.mark.parametrize("inside", [False, True])
def test_members_that_an_sdk_does_not_declare_are_read_and_unknown_ones_rejected(inside: bool) -> None:
    declared = {"prompt_tokens": 801, "completion_tokens": 2, "total_tokens": 803}
    usage = WithExtras(declared, {"prompt_tokens_details": {"cached_tokens": 768}}, inside)
    pools = {"input_tokens": 33, "cached_input_tokens": 768, "output_tokens": 2}
    assert quantities.mistral(usage) == pools
    response = WithExtras({"model": "mistral-large", "usage": usage}, {}, inside)
    assert quantities.read("mistral.chat", response).parts[0].pools == pools
    with pytest.raises(InvalidEventError, match="mystery_tokens"):
        quantities.mistral(WithExtras(declared, {"mystery_tokens": 1}, inside))
