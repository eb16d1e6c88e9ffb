"""From what a provider reports of a call to the quantities of an event: pools that do not overlap.

from taximeter import quantities

meter.record("acme", tool="chat", model="gpt-4o", quantities=quantities.openai_chat(response.usage))

Providers count a token twice (``prompt_tokens`` includes the cached ones), an event counts it once. Each function takes
one response's usage, as an object or as decoded JSON, and returns standard units. Pools of 0 are left out, so that it is
the same content whether a provider reports a 0 or nothing; if all are 0, ``input_tokens`` stays, because an event needs a
quantity. Only tokens are counted here: add searches or images by their own units.

`InvalidEventError` with ``bad_quantities`` is raised where a count is missing, no int, negative, or less than its parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from taximeter.errors import InvalidEventError


def openai_chat(usage: object) -> dict[str, int]:
    """Quantities of a chat completion, OpenAI's or that of the many others who speak this format.

    Source: ``CompletionUsage`` in OpenAI's API reference and SDK; its guide to prompt caching for ``cache_write_tokens``.
    """
    given = _Usage(usage)
    details = given.inside("prompt_tokens_details"), given.inside("completion_tokens_details")
    # No images in the prompt: OpenAI does not count them here, and those who do, do not say how many of them were cached.
    return _openai(given.total("prompt_tokens"), given.total("completion_tokens"), *details, images=False)


def openai_responses(usage: object) -> dict[str, int]:
    """Quantities of a response of OpenAI's Responses, Realtime or Images API.

    Source: ``ResponseUsage``, ``RealtimeResponseUsage`` and ``ImagesResponse`` in OpenAI's API reference and SDK.
    """
    given = _Usage(usage)
    given.must_not_have("cache_read_input_tokens", "is Anthropic's; use anthropic()")
    given.must_not_have("cache_creation_input_tokens", "is Anthropic's; use anthropic()")
    details = (given.inside(f"{way}_tokens_details", f"{way}_token_details") for way in ("input", "output"))
    return _openai(given.total("input_tokens"), given.total("output_tokens"), *details)


def anthropic(usage: object) -> dict[str, int]:
    """Quantities of a message of Anthropic's API, whose counts are disjoint but for the lifetimes of cache writes.

    Source: ``Usage`` and ``CacheCreation`` in Anthropic's API reference and SDK, and its guide to prompt caching.
    """
    given = _Usage(usage)
    given.must_not_have("input_tokens_details", "is OpenAI's; use openai_responses()")
    given.must_not_have("input_token_details", "is OpenAI's; use openai_responses()")
    lifetimes = given.inside("cache_creation")
    minutes, hour = lifetimes.part("ephemeral_5m_input_tokens"), lifetimes.part("ephemeral_1h_input_tokens")
    written = given.find("cache_creation_input_tokens") or _Count("", minutes.tokens + hour.tokens)
    output = given.total("output_tokens")
    _rest(output, given.inside("output_tokens_details").part("thinking_tokens"))
    pools = {
        "input_tokens": given.total("input_tokens").tokens,
        "cached_input_tokens": given.part("cache_read_input_tokens").tokens,
        "cache_write_tokens": _rest(written, minutes, hour) + minutes.tokens,
        "cache_write_1h_tokens": hour.tokens,
        "output_tokens": output.tokens,
    }
    return _without_zeros(pools)


def gemini(usage: object) -> dict[str, int]:
    """Quantities of Google's ``usage_metadata``, in snake case or in REST's camel case, also of the Live API.

    Thoughts and the prompts of tools stand beside the other counts. Video and documents remain among the text.

    Source: ``GenerateContentResponseUsageMetadata`` and ``UsageMetadata`` in Google's Gen AI SDK and API reference.
    """
    given = _Usage(usage)
    prompt, tools = given.total("prompt_token_count"), given.part("tool_use_prompt_token_count")
    cached, thoughts = given.part("cached_content_token_count"), given.part("thoughts_token_count")
    # JSON leaves out a 0 here: all tokens may have gone into thoughts, or the answer was blocked.
    answer = given.find("candidates_token_count", "response_token_count") or _Count("usage.candidates_token_count", 0)
    if total := given.find("total_token_count"):
        _rest(total, prompt, tools, answer, thoughts)
    _rest(prompt, cached)
    (heard, cached_heard, spoken), (seen, cached_seen, drawn) = (
        (
            given.modality(kind, "prompt_tokens_details", "tool_use_prompt_tokens_details"),
            given.modality(kind, "cache_tokens_details"),
            given.modality(kind, "candidates_tokens_details", "response_tokens_details"),
        )
        for kind in ("AUDIO", "IMAGE")
    )
    read = _Count(f"{prompt.name} with {tools.name}", prompt.tokens + tools.tokens) if tools.tokens else prompt
    pools = _input(read, cached, (heard, cached_heard), (seen, cached_seen)) | _output(answer, spoken, drawn)
    pools["output_tokens"] += thoughts.tokens
    return _without_zeros(pools)


class _Count(NamedTuple):
    name: str
    tokens: int


class _Usage:
    """What a provider reports, or a part of it, and where it stands. None holds nothing."""

    def __init__(self, given: object, path: str = "usage") -> None:
        if isinstance(given, str | bytes | int | float | list | tuple):
            raise _bad(path, f"must be an object or a mapping, not {type(given).__name__}")
        self._given = given
        self._path = path

    def find(self, *names: str) -> _Count | None:
        """The first of these counts that is given."""
        name, value = self._first(*names)
        if value is None:
            return None
        if type(value) is not int:  # a bool is none
            raise _bad(name, f"must be an int, not {type(value).__name__}; pass the usage as the provider sent it")
        if value < 0:
            raise _bad(name, f"is {value}, below 0; pass the usage as the provider sent it")
        return _Count(name, value)

    def part(self, name: str) -> _Count:
        """A count that is 0 where it is not given."""
        return self.find(name) or _Count(f"{self._path}.{name}", 0)

    def total(self, name: str) -> _Count:
        """A count that must be given."""
        if found := self.find(name):
            return found
        raise _bad(f"{self._path}.{name}", "is missing; pass one response's usage (a stream sends it last)")

    def inside(self, *names: str) -> _Usage:
        """The details under the first of these names that is given."""
        name, details = self._first(*names)
        return _Usage(details, name)

    def modality(self, kind: str, *names: str) -> _Count:
        """What these lists of details count of a modality, which is a text or an enum."""
        tokens = 0
        for name, details in map(self._first, names):
            if isinstance(details, str | Mapping) or not isinstance(details, Iterable | None):
                raise _bad(name, f"must be a list, not {type(details).__name__}")
            for detail in details or ():
                one = _Usage(detail, f"{name}[]")
                modality = one._first("modality")[1]
                if str(getattr(modality, "name", modality)).upper() == kind:
                    tokens += one.part("token_count").tokens
        return _Count(f"{self._path}.{names[0]} {kind}", tokens)

    def must_not_have(self, name: str, sentence: str) -> None:
        """Refuse a usage of another format, in which the same names mean other counts."""
        if self._first(name)[1] is not None:
            raise _bad(f"{self._path}.{name}", sentence)

    def _first(self, *names: str) -> tuple[str, object]:
        for name in names:
            start, *words = name.split("_")
            for spelled in (name, start + "".join(map(str.capitalize, words))):
                given = self._given
                value = given.get(spelled) if isinstance(given, Mapping) else getattr(given, spelled, None)
                if value is not None:
                    return f"{self._path}.{spelled}", value
        return f"{self._path}.{names[0]}", None


def _openai(total: _Count, output: _Count, read: _Usage, said: _Usage, *, images: bool = True) -> dict[str, int]:
    again, nothing = read.inside("cached_tokens_details"), _Count("", 0)
    audio = read.part("audio_tokens"), again.part("audio_tokens")
    image = (read.part("image_tokens"), again.part("image_tokens")) if images else (nothing, nothing)
    written = read.part("cache_write_tokens")
    _rest(output, said.part("reasoning_tokens"))  # a provider that counts it beside the total is not charged in full
    pools = _input(total, read.part("cached_tokens"), audio, image, written)
    return _without_zeros(pools | _output(output, said.part("audio_tokens"), said.part("image_tokens")))


def _input(
    total: _Count, cached: _Count, audio: tuple[_Count, _Count], image: tuple[_Count, _Count], *written: _Count
) -> dict[str, int]:
    """Split a prompt; audio and image come with how much of them was cached. A cached image is cached input."""
    new_audio, new_image = (_Count(f"uncached {each.name}", _rest(each, again)) for each, again in (audio, image))
    return {
        "input_tokens": _rest(total, cached, *written, new_audio, new_image),
        "cached_input_tokens": _rest(cached, audio[1], image[1]) + image[1].tokens,
        "cache_write_tokens": sum(count.tokens for count in written),
        "input_audio_tokens": new_audio.tokens,
        "cached_input_audio_tokens": audio[1].tokens,
        "input_image_tokens": new_image.tokens,
    }


def _output(total: _Count, audio: _Count, image: _Count) -> dict[str, int]:
    rest = _rest(total, audio, image)
    return {"output_tokens": rest, "output_audio_tokens": audio.tokens, "output_image_tokens": image.tokens}


def _rest(total: _Count, *parts: _Count) -> int:
    """What is left of a total."""
    rest = total.tokens - sum(part.tokens for part in parts)
    if rest < 0:
        named = " and ".join(f"{part.name} ({part.tokens})" for part in parts if part.tokens)
        advice = "pass one response's usage unchanged, or count each token in one pool by hand"
        raise _bad(total.name, f"is {total.tokens}, less than {named}, which it should include; {advice}")
    return rest


def _without_zeros(pools: dict[str, int]) -> dict[str, int]:
    return {unit: tokens for unit, tokens in pools.items() if tokens} or {"input_tokens": 0}


def _bad(field: str, sentence: str) -> InvalidEventError:
    return InvalidEventError("bad_quantities", field, sentence)
