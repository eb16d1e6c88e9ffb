"""Clients of OpenAI's library: OpenAI, Azure OpenAI, and everyone who speaks its format.

Asked for in a stream of chat, because nothing else says what it consumed: ``stream_options.include_usage``. The chunk that
answers it is not shown to a caller who did not ask.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from taximeter.integrations import bounds, http_answers
from taximeter.integrations.following import Followed, Metering, Method
from taximeter.integrations.proxy import proxy_of

PROVIDERS: Final = {
    "openai.com": "openai",
    "azure.com": "azure",
    "deepseek.com": "deepseek",
    "openrouter.ai": "openrouter",
    "x.ai": "x-ai",
    "mistral.ai": "mistral",
    "groq.com": "groq",
    "perplexity.ai": "perplexity",
    "together.xyz": "together",
    "fireworks.ai": "fireworks",
    "moonshot.ai": "moonshotai",
    "googleapis.com": "google",
}
"""Who answers, as the price book calls it, by the end of the address's host name."""

FREE_TREES: Final = (
    "admin.",
    "audio.voices.",
    "beta.assistants.",
    "content_provenance_checks.",
    "conversations.",
    "files.",
    "models.",
    "moderations.",
    "responses.input_items.",
    "responses.input_tokens.",
    "uploads.",
    "webhooks.",
)
FREE_NAMES: Final = frozenset(
    {"cancel", "close", "content", "delete", "is_closed", "list", "retrieve", "update", "search"}
)
FREE_PATHS: Final = frozenset({"close", "is_closed", "get_platform_headers", "platform_headers"})
"""What consumes no AI: whole trees, and methods by their name."""

ADVICE: Final = {
    "batches.create": "meter each line of the batch's answers: quantities.read(dialect, line)",
    "realtime.connect": 'connect with the client itself, and record quantities.read("openai.realtime", event) of each'
    " response.done",
}


def wrap(client: Any, metering: Metering) -> Any:
    """Wrap a client; see `taximeter.Meter.wrap`."""
    if metering.provider is None:
        metering = dataclasses.replace(metering, provider=provider_of(client))
    return proxy_of(client, SURFACE, metering, is_async=_is_async(client))


def provider_of(client: Any) -> str:
    """Who answers this client: told by its address, and OpenAI where that says nothing."""
    if any("Azure" in kind.__name__ for kind in type(client).__mro__):
        return "azure"
    host = urlsplit(str(client.base_url)).hostname or ""
    return next((name for end, name in PROVIDERS.items() if host == end or host.endswith(f".{end}")), "openai")


def _is_async(client: Any) -> bool:
    return any(kind.__name__ == "AsyncAPIClient" for kind in type(client).__mro__)


def _is_resource(value: object) -> bool:
    return type(value).__module__.startswith("openai.resources")


def _is_free(path: str) -> bool:
    name = path.rpartition(".")[2]
    return path.startswith(FREE_TREES) or path in FREE_PATHS or (name in FREE_NAMES and "." in path)


def _ask_for_usage(followed: Followed) -> None:
    """Have a stream say what it consumed."""
    arguments = followed.arguments
    options = arguments.get("stream_options")
    options = dict(options) if isinstance(options, Mapping) else {}
    if not options.get("include_usage"):
        arguments["stream_options"] = {**options, "include_usage": True}
        followed.hides = _is_usage_alone
    followed.usage_is_due = _EndedWithoutUsage(_choices_of(arguments))


def _ask_for_usage_of_stream(followed: Followed) -> None:
    if followed.arguments.get("stream") is True:
        _ask_for_usage(followed)


def _is_usage_alone(event: Any) -> bool:
    return isinstance(event, dict) and event.get("choices") == [] and event.get("usage") is not None


class _EndedWithoutUsage:
    """Whether all choices of a stream have ended, and its usage has not come."""

    def __init__(self, choices: int) -> None:
        self._choices = choices
        self._ended: set[Any] = set()

    def __call__(self, event: Any) -> bool:
        if not isinstance(event, dict) or event.get("usage"):
            return False
        choices = event.get("choices") or ()
        self._ended.update(choice.get("index") for choice in choices if choice.get("finish_reason"))
        return len(self._ended) >= self._choices


def _choices_of(arguments: Mapping[str, Any]) -> int:
    prompt, number = arguments.get("prompt"), arguments.get("n")
    prompts = len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1
    return prompts * (number if isinstance(number, int) else 1)


def _in_background(arguments: Mapping[str, Any]) -> str | None:
    if arguments.get("background") is True:
        return "a background response answers elsewhere. Read it with the client itself, and record its usage then"
    return None


def _without_usage(arguments: Mapping[str, Any]) -> str | None:
    if arguments.get("response_format") in {"text", "srt", "vtt"}:
        return "this response_format comes without usage; ask for json or verbose_json"
    return None


_CHAT: Final = Method("openai.chat", prepare=_ask_for_usage_of_stream, limits=bounds.CHAT)
_RESPONSES: Final = Method("openai.responses", refuse=_in_background, limits=bounds.RESPONSES)
METHODS: Final = {
    "chat.completions.create": _CHAT,
    "chat.completions.parse": Method("openai.chat", limits=bounds.CHAT),
    "chat.completions.stream": Method("openai.chat", prepare=_ask_for_usage, is_deferred=True, limits=bounds.CHAT),
    "completions.create": dataclasses.replace(_CHAT, limits=bounds.COMPLETIONS),
    "responses.create": _RESPONSES,
    "responses.parse": _RESPONSES,
    "responses.compact": Method("openai.responses", limits=bounds.RESPONSES),
    "responses.stream": dataclasses.replace(_RESPONSES, is_deferred=True),
    "embeddings.create": Method("openai.embeddings", limits=bounds.INPUT_ALONE),
    "images.generate": Method("openai.images"),
    "images.edit": Method("openai.images"),
    "images.create_variation": Method("openai.images"),
    "audio.transcriptions.create": Method("openai.audio.transcription", refuse=_without_usage),
    "audio.speech.create": Method("openai.audio.speech"),
}
"""The methods that are metered. The beta's older paths lead to the same."""
METHODS.update({f"beta.{path}": method for path, method in tuple(METHODS.items()) if path.startswith("chat.")})

SURFACE: Final = http_answers.surface(METHODS, is_free=_is_free, is_branch=_is_resource, advice=ADVICE)
