"""The usual shapes of the commonest answers, read in a few microseconds.

What is given here is what `taximeter.quantities.read` gives; a test holds the two together. Anything unusual, a count or a
member that is not expected, is left to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from taximeter.quantities.reading import Part, Reading

_NOTHING: Final[Mapping[str, Any]] = {}
_CHAT: Final = frozenset(
    {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details"}
)
_RESPONSES: Final = frozenset(
    {"input_tokens", "output_tokens", "total_tokens", "input_tokens_details", "output_tokens_details"}
)
_MESSAGES: Final = frozenset(
    {
        "input_tokens",
        "output_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "cache_creation",
        "output_tokens_details",
        "server_tool_use",
        "service_tier",
        "inference_geo",
        "speed",
    }
)


def read_usual(dialect: str, answer: object, model: str | None) -> Reading | None:
    """What a whole answer consumed, if it is one of the SDK's objects and holds nothing unusual.

    Args:
        dialect: One of `taximeter.quantities.DIALECTS`.
        answer: The answer, as an SDK gives it.
        model: The model that was asked for.
    """
    pools_of = _USUAL.get(dialect)
    given = _members(answer)
    if pools_of is None or given is None:
        return None
    usage = _members(given.get("usage"))
    if not usage or given.get("tool_usage"):
        return None
    pools = pools_of(usage)
    if pools is None:
        return None
    named, identity = given.get("model"), given.get("id")
    part = Part(named if isinstance(named, str) and named else model, {**pools})
    return Reading((part,), (), identity if isinstance(identity, str) and identity else None)


def _members(value: Any) -> Mapping[str, Any] | None:
    """The members of a model of pydantic that has no others than its class declares; None counts as one without any."""
    if value is None:
        return _NOTHING
    try:
        return None if value.__pydantic_extra__ else value.__dict__
    except AttributeError:
        return None


def _split(usage: Mapping[str, Any], prompt: str, answer: str, known: frozenset[str]) -> dict[str, int] | None:
    """Pools of a total that holds its cached tokens, and one that holds its reasoning."""
    read, said = _members(usage.get(f"{prompt}_details")), _members(usage.get(f"{answer}_details"))
    if read is None or said is None or not usage.keys() <= known:
        return None
    if _unusual(read, "cached_tokens") or _unusual(said, "reasoning_tokens"):
        return None
    asked, answered, total = usage.get(prompt), usage.get(answer), usage.get("total_tokens")
    cached, reasoning = read.get("cached_tokens") or 0, said.get("reasoning_tokens") or 0
    if not (type(asked) is type(answered) is type(total) is type(cached) is type(reasoning) is int):
        return None
    if asked + answered != total or not 0 <= cached <= asked or not 0 <= reasoning <= answered:
        return None
    return _without_zeros(
        input_tokens=asked - cached,
        cached_input_tokens=cached,
        output_tokens=answered - reasoning,
        reasoning_tokens=reasoning,
    )


def _unusual(details: Mapping[str, Any], usual: str) -> bool:
    return any(value and name not in {usual, "text_tokens"} for name, value in details.items())


def _chat(usage: Mapping[str, Any]) -> dict[str, int] | None:
    return _split(usage, "prompt_tokens", "completion_tokens", _CHAT)


def _responses(usage: Mapping[str, Any]) -> dict[str, int] | None:
    return _split(usage, "input_tokens", "output_tokens", _RESPONSES)


def _message(usage: Mapping[str, Any]) -> dict[str, int] | None:
    if not usage.keys() <= _MESSAGES:
        return None
    written, details = _members(usage.get("cache_creation")), _members(usage.get("output_tokens_details"))
    if written is None or details is None or usage.get("server_tool_use") or usage.get("cache_creation_input_tokens"):
        return None
    if any(written.values()) or any(details.values()):
        return None
    asked, answered = usage.get("input_tokens"), usage.get("output_tokens")
    cached = usage.get("cache_read_input_tokens") or 0
    if not (type(asked) is type(answered) is type(cached) is int) or asked < 0 or answered < 0 or cached < 0:
        return None
    return _without_zeros(input_tokens=asked, cached_input_tokens=cached, output_tokens=answered)


def _without_zeros(**pools: int) -> dict[str, int]:
    return {unit: count for unit, count in pools.items() if count} or {"input_tokens": 0}


_USUAL: Final[dict[str, Callable[[Mapping[str, Any]], dict[str, int] | None]]] = {
    "openai.chat": _chat,
    "openai.responses": _responses,
    "anthropic.messages": _message,
}
