"""What the quick reading of usual answers gives is what the whole one gives."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic.types import Message
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from provider_server import FIXTURES
from taximeter import InvalidEventError, quantities
from taximeter.quantities.usual import read_usual

KINDS: dict[str, Any] = {"openai.chat": ChatCompletion, "openai.responses": Response, "anthropic.messages": Message}
COUNT = st.one_of(st.none(), st.integers(-1, 40))
WHOLE: dict[str, dict[str, Any]] = {
    "openai.chat": FIXTURES["oai-chat-cached"]["response"],
    "openai.responses": FIXTURES["oai-resp-plain"]["response"],
    "anthropic.messages": FIXTURES["ant-thinking"]["response"],
}
DETAILS = {
    "prompt_tokens_details": ("cached_tokens", "audio_tokens", "cache_write_tokens", "text_tokens"),
    "completion_tokens_details": ("reasoning_tokens", "audio_tokens", "text_tokens"),
    "input_tokens_details": ("cached_tokens", "cache_write_tokens"),
    "output_tokens_details": ("reasoning_tokens", "thinking_tokens"),
    "cache_creation": ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"),
    "server_tool_use": ("web_search_requests",),
}
NAMES = {
    "openai.chat": ("prompt_tokens", "completion_tokens"),
    "openai.responses": ("input_tokens", "output_tokens"),
    "anthropic.messages": ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),
}
INSIDE = {
    "openai.chat": ("prompt_tokens_details", "completion_tokens_details"),
    "openai.responses": ("input_tokens_details", "output_tokens_details"),
    "anthropic.messages": ("cache_creation", "output_tokens_details", "server_tool_use"),
}


def compared(dialect: str, response: dict[str, Any]) -> bool:
    """Whether the quick reading took it; then both agree."""
    answer = KINDS[dialect].construct(**response)
    quick = read_usual(dialect, answer, "asked")
    if quick is None:
        return False
    assert quick == quantities.read(dialect, answer, model="asked")
    return True


@pytest.mark.parametrize("name", [name for name, fixture in FIXTURES.items() if fixture["shape"] in KINDS])
def test_the_fixtures_are_read_alike(name: str) -> None:
    compared(FIXTURES[name]["shape"], FIXTURES[name]["response"])


@pytest.mark.parametrize("dialect", KINDS)
@given(data=st.data())
def test_any_counts_are_read_alike(dialect: str, data: st.DataObject) -> None:
    usage: dict[str, Any] = {name: data.draw(COUNT) for name in NAMES[dialect]}
    for name in INSIDE[dialect]:
        usage[name] = data.draw(st.one_of(st.none(), st.fixed_dictionaries(dict.fromkeys(DETAILS[name], COUNT))))
    if dialect != "anthropic.messages":
        numbers = [usage[name] or 0 for name in NAMES[dialect]]
        usage["total_tokens"] = sum(numbers) + data.draw(st.sampled_from([0, 0, 0, 1, 7]))
    if data.draw(st.booleans()):
        usage["strange_tokens"] = data.draw(COUNT)
    compared(dialect, {**WHOLE[dialect], "usage": usage})


def test_the_usual_ones_are_taken_and_bad_ones_are_left_to_the_whole_reading() -> None:
    for dialect, names in NAMES.items():
        counts = {"total_tokens": 5} if dialect != "anthropic.messages" else {}
        usual = {names[0]: 3, names[1]: 2, **counts}
        assert compared(dialect, {**WHOLE[dialect], "usage": usual})
        assert not compared(dialect, {**WHOLE[dialect], "usage": {**usual, names[1]: -2}})
        with pytest.raises(InvalidEventError):
            quantities.read(dialect, {**WHOLE[dialect], "usage": {**usual, "strange_tokens": 1}})


def test_a_callers_own_metadata_names_no_model() -> None:
    response = {**WHOLE["openai.responses"], "metadata": {"model": "cheap", "id": "mine"}}
    for answer in (response, Response.construct(**response)):
        reading = quantities.read("openai.responses", answer)
        assert (reading.parts[0].model, reading.request_id) == (response["model"], response["id"])
