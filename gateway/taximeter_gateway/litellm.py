"""What LiteLLM's generic API callback sends: standard logging payloads, each turned into the usage events of its call."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, Literal

import msgspec

from taximeter import quantities
from taximeter.errors import InvalidEventError
from taximeter.events import usage_line
from taximeter.labels import labels
from taximeter_gateway.errors import ProblemError, TooLargeError
from taximeter_gateway.events import EVENTS_MAX
from taximeter_gateway.keys import Caller

SOURCE: Final = "/litellm"
TOOL: Final = "litellm"
NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "team": ("metadata", "user_api_key_team_id"),
    "organization": ("metadata", "user_api_key_org_id"),
    "user": ("metadata", "user_api_key_user_id"),
    "key": ("metadata", "user_api_key_alias"),
    "end_user": ("end_user",),
}
"""Where a payload names a workspace, by the word that the address of the callback gives."""
WorkspaceName = Literal["team", "organization", "user", "key", "end_user"]
_decode = msgspec.json.Decoder(float_hook=Decimal).decode


def payloads_of(body: bytes) -> list[Any]:
    """The payloads of a body: an array, one object, or one a line.

    Raises:
        ProblemError: It cannot be read, or holds too many.
    """
    try:
        read = _loaded(body)
        payloads = read if isinstance(read, list) else [read]
    except ValueError:
        try:
            payloads = [_loaded(line) for line in body.splitlines() if line.strip()]
        except ValueError:
            raise ProblemError("The body cannot be read as JSON.") from None
    if len(payloads) > EVENTS_MAX:
        raise TooLargeError(f"There are {len(payloads)} payloads; at most {EVENTS_MAX} are taken at once.")
    return payloads


def is_free(payload: object) -> bool:
    """Whether a payload tells of a call that consumed nothing: it failed, or was answered from LiteLLM's cache."""
    return isinstance(payload, dict) and (payload.get("status") == "failure" or payload.get("cache_hit") is True)


def id_of(payload: object) -> str | None:
    """The id of a payload, if it has one."""
    call_id = (payload.get("litellm_call_id") or payload.get("id")) if isinstance(payload, dict) else None
    return call_id if isinstance(call_id, str) and call_id else None


def lines_of(payload: object, caller: Caller, workspace: str, tool: str | None) -> Iterator[bytes]:
    """The events of one payload, one for each model that was billed.

    Args:
        payload: As it came.
        caller: Whose key it is; one that is for a single workspace or tool says what the payload leaves out.
        workspace: One of `NAMES`.
        tool: The tool of all payloads, if the address of the callback names one.

    Raises:
        InvalidEventError: No event can be made of it.
    """
    if not isinstance(payload, dict):
        raise InvalidEventError("not_an_object", "payload", "must be a JSON object")
    call_id = id_of(payload)
    if call_id is None:
        raise InvalidEventError("id_required", "payload.id", "is missing")
    provider, model = _text(payload.get("custom_llm_provider")), _text(payload.get("model"))
    reading = quantities.read("litellm.usage", _answer(payload, model), model=model, provider=provider)
    for part in reading.parts:
        _, line = usage_line(
            _workspace(payload, caller, workspace),
            tool=tool or _only(caller.producer.tools) or TOOL,
            quantities=part.pools,
            provider=provider,
            model=part.model,
            labels=labels(user=_user(payload)),
            input=None,
            output=None,
            metadata={"litellm_id": payload.get("id"), "flags": list(reading.flags)},
            event_id=f"{call_id}{part.suffix}",
            occurred_at=_moment(payload.get("endTime")),
            source=SOURCE,
        )
        yield line


def _answer(payload: Mapping[str, Any], model: str | None) -> dict[str, Any]:
    usage = _at(payload, "metadata", "usage_object") or _at(payload, "response", "usage")
    if not isinstance(usage, dict):
        usage = {name: payload.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    return {"model": model, "usage": usage}


def _workspace(payload: Mapping[str, Any], caller: Caller, workspace: str) -> str:
    named = _text(_at(payload, *NAMES[workspace])) or _only(caller.producer.workspaces)
    if named is None:
        raise InvalidEventError(
            "workspace_required", ".".join(NAMES[workspace]), "is missing; it says whose balance pays"
        )
    return named


def _user(payload: Mapping[str, Any]) -> str | None:
    return _text(payload.get("end_user")) or _text(_at(payload, "metadata", "user_api_key_user_id"))


def _moment(ended: object) -> dt.datetime | None:
    """When the call ended: seconds since 1970, or a text with a zone; None where the payload does not say."""
    try:
        if isinstance(ended, int | Decimal) and not isinstance(ended, bool):
            return dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(microseconds=int(ended * 1_000_000))
        if isinstance(ended, str):
            return dt.datetime.fromisoformat(ended)
    except (ValueError, OverflowError, ArithmeticError):
        raise InvalidEventError("bad_time", "payload.endTime", "cannot be read") from None
    return None


def _at(payload: object, *path: str) -> Any:
    for name in path:
        payload = payload.get(name) if isinstance(payload, dict) else None
    return payload


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _only(allowed: tuple[str, ...] | None) -> str | None:
    return allowed[0] if allowed is not None and len(allowed) == 1 else None


def _loaded(text: bytes) -> Any:
    """Raises ValueError where it cannot be read."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, ArithmeticError, RecursionError):
        pass
    try:
        return json.loads(text, parse_float=Decimal)
    except (ArithmeticError, RecursionError) as error:
        raise ValueError("cannot be read as JSON") from error
