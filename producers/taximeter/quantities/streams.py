"""A response, or the events of a stream, folded into what is read of them: usage, models, id, and whether it ended.

In a stream the last value of each field that is not null counts, never a sum and never the largest: providers send
running totals, and correct themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from taximeter.quantities.usage import member, plain

_CONTAINERS: Final = ("message", "response", "delta", "data", "session")
"""Where an event may hold its response."""
_NAMES_ONLY: Final = "response_metadata"
"""Where LangChain keeps the model's name; the usage in there is the provider's, which it has translated."""
_USAGES: Final = ("usage", "usage_metadata", "usage_info", "amazon-bedrock-invocationMetrics", "meta")
_MODELS: Final = ("model", "model_version", "model_name")
_IDS: Final = ("id", "response_id")
_KEPT: Final = ("tools", "tool_usage", "svg_usage")
_ENDS: Final = frozenset(
    {
        "response.completed",
        "response.incomplete",
        "response.failed",
        "response.done",
        "message_stop",
        "message-end",
        "transcript.text.done",
        "speech.audio.done",
        "image_generation.completed",
        "image_edit.completed",
        "conversation.item.input_audio_transcription.completed",
        "session.usage.updated",
    }
)
"""Types of events that close a stream, or, of a session that has no end, hold all of it so far."""


class Answer:
    """What is known of a response so far. Feed it events one by one, or one whole response."""

    def __init__(self) -> None:
        self.usage: dict[str, Any] = {}
        self.extras: dict[str, Any] = {}
        self.images = 0
        self.model: str | None = None
        self.request_id: str | None = None
        self.ended = False

    def add(self, event: object) -> None:
        """Take one event, as the SDK gives it or as decoded JSON."""
        if event is None or isinstance(event, str | bytes | int | float):
            return
        self.ended = self.ended or _ends(event)
        data = member(event, "data")
        self.images = len(data) if isinstance(data, list | tuple) else self.images
        self._take_names(member(event, _NAMES_ONLY))
        for container in (event, *(member(event, name) for name in _CONTAINERS)):
            if _is_object(container):
                self._take_names(container)
                self._take_counts(container)
        if _is_object(metadata := member(event, "metadata")):
            self._take_counts(metadata)  # never a name: in OpenAI's responses it is the caller's own

    def _take_names(self, container: object) -> None:
        if not _is_object(container):
            return
        for name in _MODELS:
            if isinstance(model := member(container, name), str) and model:
                self.model = model
        for name in _IDS:
            if isinstance(identity := member(container, name), str) and identity:
                self.request_id = identity

    def _take_counts(self, container: object) -> None:
        for name in _KEPT:
            if (value := member(container, name)) is not None:
                self.extras[name] = plain(value)
        given = (value for name in _USAGES if _is_object(value := member(container, name)))
        usage = plain(next(given, None))
        if usage and not (self.usage and "input_token_count" in usage):  # Bedrock's metrics repeat the message's usage
            self._fold(usage)

    def _fold(self, usage: Mapping[str, Any]) -> None:
        for name in ("total_tokens", "total_token_count"):
            self.usage.pop(name, None)  # the total of an earlier event is not that of the later counts
        written = usage.get("cache_creation_input_tokens")
        if written is not None and written != self.usage.get("cache_creation_input_tokens"):
            self.usage.pop("cache_creation", None)  # nor are its lifetimes
        _merge(self.usage, usage)


def _is_object(value: object) -> bool:
    return not (value is None or isinstance(value, str | bytes | int | float | list | tuple) or callable(value))


def _merge(known: dict[str, Any], usage: Mapping[str, Any]) -> None:
    for name, value in usage.items():
        if isinstance(value, Mapping):
            inner = known.get(name)
            known[name] = dict(inner) if isinstance(inner, dict) else {}
            _merge(known[name], value)
        elif value is not None or name not in known:
            known[name] = value


def _ends(event: object) -> bool:
    """Whether an event closes a stream, in any of the dialects."""
    if member(event, "type") in _ENDS or member(event, "event_type") == "stream-end":
        return True
    data = member(event, "data")
    inner = data if _is_object(data) else event
    choices, candidates = member(inner, "choices"), member(inner, "candidates")
    if isinstance(choices, list | tuple) and not choices:
        return member(inner, "usage") is not None
    if any(member(part, "finish_reason") for parts in (choices, candidates) for part in _listed(parts)):
        return True
    marks = (
        ("delta", "stop_reason"),
        ("metadata", "usage"),
        ("prompt_feedback", "block_reason"),
        (_NAMES_ONLY, "finish_reason"),
        (_NAMES_ONLY, "stop_reason"),
    )
    return any(_is_object(part := member(event, name)) and member(part, mark) for name, mark in marks)


def _listed(parts: object) -> list[object]:
    return [part for part in parts if _is_object(part)] if isinstance(parts, list | tuple) else []
