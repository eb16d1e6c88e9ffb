"""Amazon Bedrock by boto3: ``meter.wrap(boto3.client("bedrock-runtime"))``.

The SDK repeats failed requests by itself; what is metered is the call. The body of ``invoke_model`` is read at once, as
its usage stands in it or in the headers, and given on as a body of the same kind.
"""

from __future__ import annotations

import dataclasses
import io
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from taximeter.errors import ConfigurationError
from taximeter.integrations import bounds
from taximeter.integrations.following import Followed, Metering, Method
from taximeter.integrations.proxy import Surface, proxy_of

_FREE: Final = frozenset(
    {"can_paginate", "close", "count_tokens", "get_async_invoke", "get_paginator", "get_waiter", "list_async_invokes"}
)
_HEADERS: Final = {
    "x-amzn-bedrock-input-token-count": "inputTokens",
    "x-amzn-bedrock-output-token-count": "outputTokens",
    "x-amzn-bedrock-cache-read-input-token-count": "cacheReadInputTokens",
    "x-amzn-bedrock-cache-write-input-token-count": "cacheWriteInputTokens",
}
_METRICS: Final = "amazon-bedrock-invocationMetrics"


def wrap(client: Any, metering: Metering) -> Any:
    """A stand-in for a client of the service ``bedrock-runtime``.

    Raises:
        ConfigurationError: It is a client of another service.
    """
    service = client.meta.service_model.service_name
    if service != "bedrock-runtime":
        raise ConfigurationError(f'a client of "{service}" cannot be wrapped; wrap that of "bedrock-runtime"')
    if metering.provider is None:
        metering = dataclasses.replace(metering, provider="aws-bedrock")
    return proxy_of(client, _SURFACE, metering, is_async=False)


def _choose_dialect(followed: Followed) -> None:
    """Claude reports what it wrote to which cache in its own format."""
    body, model = followed.arguments.get("body"), str(followed.arguments.get("modelId"))
    text = body.encode() if isinstance(body, str) else body
    if "anthropic." in model or (isinstance(text, bytes | bytearray) and b'"anthropic_version"' in text):
        followed.read_as("bedrock.invoke.anthropic")


def _follow(followed: Followed, answer: dict[str, Any], _view: str | None) -> dict[str, Any]:
    about = answer.get("ResponseMetadata", {})
    if isinstance(about.get("RequestId"), str):
        followed.call.metadata["request_id"] = about["RequestId"]
    if "stream" in answer:
        answer["stream"] = _Events(answer["stream"], followed, lambda event: event)
    elif "body" not in answer:
        followed.whole(answer)
    elif hasattr(answer["body"], "read"):
        _read_body(followed, answer, about.get("HTTPHeaders", {}))
    else:
        answer["body"] = _Events(answer["body"], followed, _chunk)
    return answer


async def _follow_async(followed: Followed, answer: Any, view: str | None) -> Any:
    return _follow(followed, answer, view)


def _read_body(followed: Followed, answer: dict[str, Any], headers: Mapping[str, str]) -> None:
    counts = {name: int(headers[header]) for header, name in _HEADERS.items() if headers.get(header, "").isdecimal()}
    reported = {"usage": {"outputTokens": 0, **counts}} if counts else None
    try:
        content = answer["body"].read()
    except BaseException:
        if reported is not None:
            followed.event(reported)
        followed.end(complete=False)
        raise
    answer["body"] = type(answer["body"])(io.BytesIO(content), len(content))
    followed.whole((_json(content) if followed.dialect == "bedrock.invoke.anthropic" else None) or reported)


def _json(content: bytes) -> dict[str, Any] | None:
    try:
        decoded = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return decoded if isinstance(decoded, dict) and "usage" in decoded else None


def _chunk(event: Mapping[str, Any]) -> Any:
    try:
        return msgspec.json.decode(event["chunk"]["bytes"])
    except (KeyError, msgspec.DecodeError):
        return None


class _Events:
    """Stands for a stream of events."""

    def __init__(self, events: Any, followed: Followed, decode: Callable[[Any], Any]) -> None:
        self._taximeter_events = (events, _read(events, followed, decode), followed)
        weakref.finalize(self, followed.end)

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._taximeter_events[0])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._taximeter_events[0], name)

    def __iter__(self) -> Iterator[Any]:
        yield from self._taximeter_events[1]  # holds this object, whose end is the call's

    def close(self) -> None:
        events, _, followed = self._taximeter_events
        try:
            events.close()
        finally:
            followed.end()


def _read(events: Any, followed: Followed, decode: Callable[[Any], Any]) -> Iterator[Any]:
    """Usage follows in an event of its own after the message's end, where many stop: it is read before the end is shown."""
    is_whole: bool | None = None
    held: list[Any] = []
    try:
        for event in events:
            reported = decode(event)
            followed.event(reported)
            if isinstance(reported, dict) and _METRICS in reported:
                is_whole = True
            if "messageStop" in event:
                held.append(event)
                continue
            yield from (*held, event)
            held.clear()
        yield from held
    finally:
        followed.end(complete=is_whole)


_INVOKE: Final = Method("bedrock.invoke", prepare=_choose_dialect, model_argument="modelId", limits=bounds.INVOKE)
_CONVERSE: Final = Method("bedrock.converse", model_argument="modelId", limits=bounds.CONVERSE)
_SURFACE: Final = Surface(
    methods={
        "converse": _CONVERSE,
        "converse_stream": _CONVERSE,
        "invoke_model": _INVOKE,
        "invoke_model_with_response_stream": _INVOKE,
    },
    is_free=_FREE.__contains__,
    is_branch=lambda _value: False,
    follow=_follow,
    follow_async=_follow_async,
)
