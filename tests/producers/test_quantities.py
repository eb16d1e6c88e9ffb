"""Usage objects as the providers send them, and the pools that come of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter import InvalidEventError, names, quantities

ROOT = Path(__file__).parents[2]
CHAT = {
    "prompt_tokens": 2006,
    "completion_tokens": 300,
    "total_tokens": 2306,
    "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 192,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}
RESPONSES = {
    "input_tokens": 2600,
    "input_tokens_details": {"cached_tokens": 2000, "cache_write_tokens": 400},
    "output_tokens": 42,
    "output_tokens_details": {"reasoning_tokens": 25},
    "total_tokens": 2642,
}
REALTIME = {
    "total_tokens": 673,
    "input_tokens": 552,
    "output_tokens": 121,
    "input_token_details": {
        "text_tokens": 119,
        "audio_tokens": 413,
        "image_tokens": 20,
        "cached_tokens": 320,
        "cached_tokens_details": {"text_tokens": 64, "audio_tokens": 250, "image_tokens": 6},
    },
    "output_token_details": {"text_tokens": 30, "audio_tokens": 91},
}
IMAGES = {
    "input_tokens": 50,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
    "output_tokens": 272,
    "output_tokens_details": {"text_tokens": 0, "image_tokens": 272},
    "total_tokens": 322,
}
ANTHROPIC = {
    "input_tokens": 21,
    "cache_creation_input_tokens": 556,
    "cache_read_input_tokens": 30433,
    "cache_creation": {"ephemeral_5m_input_tokens": 456, "ephemeral_1h_input_tokens": 100},
    "output_tokens": 503,
    "output_tokens_details": {"thinking_tokens": 400},
    "server_tool_use": None,
    "service_tier": "standard",
}
GEMINI = {
    "promptTokenCount": 2553,
    "cachedContentTokenCount": 1790,
    "candidatesTokenCount": 107,
    "thoughtsTokenCount": 328,
    "toolUsePromptTokenCount": 85,
    "totalTokenCount": 3073,
    "promptTokensDetails": [
        {"modality": "TEXT", "tokenCount": 1295},
        {"modality": "IMAGE", "tokenCount": 258},
        {"modality": "AUDIO", "tokenCount": 1000},
    ],
    "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 1000}, {"modality": "AUDIO", "tokenCount": 790}],
    "toolUsePromptTokensDetails": [{"modality": "TEXT", "tokenCount": 80}, {"modality": "AUDIO", "tokenCount": 5}],
    "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": 100}, {"modality": "TEXT"}],
}
SAMPLES = [
    pytest.param(
        quantities.openai_chat,
        CHAT,
        {"input_tokens": 86, "cached_input_tokens": 1920, "output_tokens": 108, "reasoning_tokens": 192},
        id="chat",
    ),
    pytest.param(
        quantities.openai_responses,
        RESPONSES,
        {
            "input_tokens": 200,
            "cached_input_tokens": 2000,
            "cache_write_tokens": 400,
            "output_tokens": 17,
            "reasoning_tokens": 25,
        },
        id="responses",
    ),
    pytest.param(
        quantities.openai_responses,
        REALTIME,
        {
            "input_tokens": 55,
            "cached_input_tokens": 70,
            "input_audio_tokens": 163,
            "cached_input_audio_tokens": 250,
            "input_image_tokens": 14,
            "output_tokens": 30,
            "output_audio_tokens": 91,
        },
        id="realtime",
    ),
    pytest.param(
        quantities.openai_responses,
        IMAGES,
        {"input_tokens": 10, "input_image_tokens": 40, "output_image_tokens": 272},
        id="images",
    ),
    pytest.param(
        quantities.anthropic,
        ANTHROPIC,
        {
            "input_tokens": 21,
            "cached_input_tokens": 30433,
            "cache_write_tokens": 456,
            "cache_write_1h_tokens": 100,
            "output_tokens": 103,
            "reasoning_tokens": 400,
        },
        id="anthropic",
    ),
    pytest.param(
        quantities.gemini,
        GEMINI,
        {
            "input_tokens": 2553 + 85 - 1790 - 215 - 258,
            "cached_input_tokens": 1000,
            "input_audio_tokens": 215,
            "cached_input_audio_tokens": 790,
            "input_image_tokens": 258,
            "output_tokens": 7,
            "reasoning_tokens": 328,
            "output_audio_tokens": 100,
        },
        id="gemini",
    ),
]


def as_object(value: Any) -> Any:
    """As an SDK gives it: objects with attributes."""
    if isinstance(value, dict):
        return SimpleNamespace(**{name: as_object(member) for name, member in value.items()})
    return [as_object(member) for member in value] if isinstance(value, list) else value


def snake(value: Any) -> Any:
    """As Google's Python SDK names it."""
    if isinstance(value, dict):
        return {re.sub("([A-Z])", r"_\1", name).lower(): snake(member) for name, member in value.items()}
    return [snake(member) for member in value] if isinstance(value, list) else value


@pytest.mark.parametrize("form", [dict, as_object, snake, lambda usage: as_object(snake(usage))])
@pytest.mark.parametrize(("adapter", "usage", "pools"), SAMPLES)
def test_what_a_provider_reports_becomes_disjoint_pools(adapter: Any, usage: Any, pools: Any, form: Any) -> None:
    assert adapter(form(usage)) == pools
    assert set(pools) <= set(names.STANDARD_UNITS)


def test_a_zero_is_the_same_as_nothing() -> None:
    bare = {"prompt_tokens": 10, "completion_tokens": 5}
    nulls = {**bare, "prompt_tokens_details": None, "completion_tokens_details": {"reasoning_tokens": None}}
    zeros = {**bare, "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, "audio_tokens": 0}}
    for usage in (bare, nulls, zeros):
        assert quantities.openai_chat(usage) == {"input_tokens": 10, "output_tokens": 5}
    nothing = {"prompt_tokens": 0, "completion_tokens": 0}
    assert quantities.openai_chat(nothing) == {"input_tokens": 0}, "an event needs a quantity"
    assert quantities.openai_chat({**nothing, "completion_tokens": 3}) == {"output_tokens": 3}


def test_images_of_a_chat_stay_in_the_prompt() -> None:
    usage = {
        "prompt_tokens": 125,
        "prompt_tokens_details": {"text_tokens": 25, "image_tokens": 100, "cached_tokens": 98},
        "completion_tokens": 4,
    }
    assert quantities.openai_chat(usage) == {"input_tokens": 27, "cached_input_tokens": 98, "output_tokens": 4}


def test_cache_writes_without_a_lifetime_are_the_short_ones() -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "cache_creation_input_tokens": 30}
    assert quantities.anthropic(usage)["cache_write_tokens"] == 30
    usage["cache_creation"] = {"ephemeral_1h_input_tokens": 10}
    assert quantities.anthropic(usage) == {
        "input_tokens": 1,
        "cache_write_tokens": 20,
        "cache_write_1h_tokens": 10,
        "output_tokens": 2,
    }
    del usage["cache_creation_input_tokens"]
    assert quantities.anthropic(usage) == {"input_tokens": 1, "cache_write_1h_tokens": 10, "output_tokens": 2}


def test_a_gemini_answer_may_be_all_thoughts_and_the_live_api_names_it_otherwise() -> None:
    thinking = {"promptTokenCount": 20, "thoughtsTokenCount": 405, "totalTokenCount": 425}
    assert quantities.gemini(thinking) == {"input_tokens": 20, "reasoning_tokens": 405}
    modality = SimpleNamespace(name="AUDIO")  # an enum
    details = [SimpleNamespace(modality=modality, token_count=40)]
    live = {"prompt_token_count": 20, "response_token_count": 50, "response_tokens_details": details}
    assert quantities.gemini(live) == {"input_tokens": 20, "output_tokens": 10, "output_audio_tokens": 40}


def changed(usage: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    copy = json.loads(json.dumps(usage))
    *folders, last = path.split(".")
    inner = copy
    for name in folders:
        inner = inner[name]
    inner[last] = value
    return copy


@pytest.mark.parametrize(
    ("adapter", "usage", "path", "value", "says"),
    [
        (quantities.openai_chat, CHAT, "prompt_tokens_details.cached_tokens", 2007, r"is 2006, less than .*\(2007\)"),
        (quantities.openai_chat, CHAT, "prompt_tokens_details.audio_tokens", 2007, r"is 2006, less than .*2007"),
        (quantities.openai_chat, CHAT, "completion_tokens_details.reasoning_tokens", 301, r"is 300, less than .*301"),
        (quantities.openai_chat, CHAT, "completion_tokens_details.audio_tokens", 301, r"is 300, less than .*301"),
        (quantities.openai_responses, RESPONSES, "input_tokens_details.cache_write_tokens", 601, r"2600.*2000.*601"),
        (quantities.openai_responses, REALTIME, "input_token_details.audio_tokens", 249, r"is 249, less than .*250"),
        (quantities.openai_responses, REALTIME, "input_token_details.cached_tokens", 255, r"is 255, less .*250.* and"),
        (quantities.anthropic, ANTHROPIC, "cache_creation.ephemeral_1h_input_tokens", 101, r"556, less .*456.*101"),
        (quantities.anthropic, ANTHROPIC, "output_tokens_details.thinking_tokens", 504, r"is 503, less than .*504"),
        (quantities.gemini, GEMINI, "cachedContentTokenCount", 2554, r"is 2553, less than .*2554"),
        (quantities.gemini, GEMINI, "candidatesTokenCount", 99, r"is 3073, which is not the sum of .*\(99\)"),
        (quantities.gemini, {**GEMINI, "totalTokenCount": None}, "candidatesTokenCount", 99, r"AUDIO \(100\)"),
        (quantities.gemini, GEMINI, "totalTokenCount", 3072, r"is 3072, .*not the sum of .*2553.*85.*107.*328"),
        (quantities.openai_chat, CHAT, "prompt_tokens", -1, "is -1, below 0"),
        (quantities.openai_chat, CHAT, "prompt_tokens_details.cached_tokens", True, "must be an int, not bool"),
        (quantities.openai_chat, CHAT, "prompt_tokens_details.cached_tokens", "1920", "must be an int, not str"),
        (quantities.openai_chat, CHAT, "completion_tokens", 300.0, "must be an int, not float"),
        (quantities.openai_chat, CHAT, "prompt_tokens_details", 1920, "must be an object or a mapping, not int"),
        (quantities.gemini, GEMINI, "promptTokensDetails", {"TEXT": 1}, "must be a list, not (dict|SimpleNamespace)"),
        (quantities.gemini, GEMINI, "promptTokensDetails", 7, "must be a list, not int"),
        (quantities.gemini, GEMINI, "promptTokensDetails", ["AUDIO"], "must be an object or a mapping, not str"),
        (quantities.openai_chat, CHAT, "prompt_tokens", None, "usage.prompt_tokens: is missing"),
        (quantities.openai_chat, CHAT, "completion_tokens", None, "usage.completion_tokens: is missing"),
        (quantities.anthropic, ANTHROPIC, "output_tokens", None, "usage.output_tokens: is missing"),
        (quantities.gemini, GEMINI, "promptTokenCount", None, "usage.prompt_token_count: is missing"),
    ],
)
def test_what_cannot_be_right_is_rejected_with_both_counts(
    adapter: Any, usage: Any, path: str, value: Any, says: str
) -> None:
    for form in (dict, as_object):
        with pytest.raises(InvalidEventError, match=says) as rejection:
            adapter(form(changed(usage, path, value)))
        assert rejection.value.code == "bad_quantities"
        assert rejection.value.field.startswith("usage.")


@pytest.mark.parametrize(
    ("adapter", "usage", "says"),
    [
        (quantities.openai_responses, ANTHROPIC, "use anthropic"),
        (quantities.anthropic, RESPONSES, "use openai_responses"),
        (quantities.anthropic, REALTIME, "use openai_responses"),
        (quantities.openai_chat, ANTHROPIC, "missing"),
        (quantities.openai_chat, RESPONSES, "missing"),
        (quantities.openai_responses, CHAT, "missing"),
        (quantities.gemini, CHAT, "missing"),
        (quantities.openai_chat, None, "missing"),
        (quantities.openai_chat, [CHAT], "not list"),
    ],
)
def test_a_usage_of_another_format_is_rejected(adapter: Any, usage: Any, says: str) -> None:
    with pytest.raises(InvalidEventError, match=says) as rejection:
        adapter(usage)
    assert rejection.value.code == "bad_quantities"


counts = st.integers(0, 10**12)


@given(st.tuples(*[counts] * 9))
def test_openai_pools_sum_to_the_totals(pools: tuple[int, ...]) -> None:
    text, cached, written, audio, cached_audio, image, cached_image, said, spoken = pools
    usage = {
        "input_tokens": text + cached + written + audio + cached_audio + image + cached_image,
        "input_token_details": {
            "cached_tokens": cached + cached_audio + cached_image,
            "cache_write_tokens": written,
            "audio_tokens": audio + cached_audio,
            "image_tokens": image + cached_image,
            "cached_tokens_details": {"audio_tokens": cached_audio, "image_tokens": cached_image},
        },
        "output_tokens": said + spoken,
        "output_token_details": {"audio_tokens": spoken},
    }
    made = quantities.openai_responses(usage)
    expected = {
        "input_tokens": text,
        "cached_input_tokens": cached + cached_image,
        "cache_write_tokens": written,
        "input_audio_tokens": audio,
        "cached_input_audio_tokens": cached_audio,
        "input_image_tokens": image,
        "output_tokens": said,
        "output_audio_tokens": spoken,
    }
    assert {unit: count for unit, count in made.items() if count} == {
        u: count for u, count in expected.items() if count
    }
    assert sum(made.values()) == usage["input_tokens"] + usage["output_tokens"]


@given(*[counts] * 4, st.integers(0, 50), st.integers(0, 50))
def test_chat_and_gemini_pools_sum_to_the_totals_or_are_rejected(
    prompt: int, answer: int, thoughts: int, tools: int, cached: int, audio: int
) -> None:
    prompt %= 100  # so that the parts are now and then too large
    chat = {
        "prompt_tokens": prompt,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": audio},
        "completion_tokens": answer,
    }
    gemini = {
        "promptTokenCount": prompt,
        "cachedContentTokenCount": cached,
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": audio}],
        "candidatesTokenCount": answer,
        "thoughtsTokenCount": thoughts,
        "toolUsePromptTokenCount": tools,
        "totalTokenCount": prompt + answer + thoughts + tools,
    }
    for adapter, usage, room, total in (
        (quantities.openai_chat, chat, min(prompt - cached, prompt - audio), prompt + answer),
        (quantities.gemini, gemini, min(prompt - cached, prompt + tools - audio), gemini["totalTokenCount"]),
    ):
        if room < 0:
            with pytest.raises(InvalidEventError):
                adapter(usage)
        else:
            made = adapter(usage)
            assert sum(made.values()) == total
            assert min(made.values()) >= 0


@given(*[counts] * 5)
def test_anthropic_pools_sum_to_the_counts(fresh: int, read: int, minutes: int, hour: int, output: int) -> None:
    usage = {
        "input_tokens": fresh,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": minutes + hour,
        "cache_creation": {"ephemeral_5m_input_tokens": minutes, "ephemeral_1h_input_tokens": hour},
        "output_tokens": output,
    }
    assert sum(quantities.anthropic(usage).values()) == fresh + read + minutes + hour + output


def test_the_sdk_does_not_import_it_by_itself() -> None:
    script = "import sys, taximeter; print('taximeter.quantities' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_documented_example_records_disjoint_pools(make_meter: Any, broker: Any, redis_url: str) -> None:
    page = (ROOT / "docs" / "sdk.md").read_text()
    example = re.search(r"^from taximeter import quantities\n.*?(?=^```)", page, re.MULTILINE | re.DOTALL)
    assert example
    meter = make_meter(broker_url=broker.url, redis_url=redis_url)
    exec(example[0], {"meter": meter, "response": SimpleNamespace(model="gpt-4o", usage=as_object(CHAT))})
    meter.flush(timeout=20)
    (event,) = broker.events()
    assert event["data"]["quantities"] == {
        "input_tokens": 86,
        "cached_input_tokens": 1920,
        "output_tokens": 108,
        "reasoning_tokens": 192,
    }
