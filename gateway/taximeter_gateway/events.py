"""From a request to events that may be spooled: the modes of CloudEvents over HTTP, and what is checked of each event.

An event goes on as the bytes that came. What is checked is what a worker would surely refuse, so that a mistake shows where it
was made, and what the key may publish; the codes are those of the quarantine. Two names in one event are left to the worker,
which refuses them.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from taximeter import names
from taximeter.envelope import check_event
from taximeter.errors import InvalidEventError
from taximeter.events import check_names, exact_quantities
from taximeter.labels import TEXTS_MAX, labels
from taximeter_db import producer_keys
from taximeter_gateway.errors import ProblemError, TooLargeError
from taximeter_gateway.keys import Caller

EVENTS_MAX: Final = 1_000
"""Events in one request."""
JSON_TYPE: Final = "application/json"
_ATTRIBUTE: Final = re.compile(r"ce-([a-z0-9]{1,64})")
_WHITE: Final = " \t\r\n"
_split = msgspec.json.Decoder(list[msgspec.Raw]).decode
_whole = msgspec.json.Decoder(msgspec.Raw).decode


class Refusal(msgspec.Struct, omit_defaults=True):
    """Why one event of a request is not taken."""

    index: int
    code: str
    detail: str
    id: str | None = None


class Accepted(msgspec.Struct, frozen=True):
    """An event that may be spooled."""

    index: int
    id: str
    routing_key: str
    line: bytes
    hold: tuple[str, str] | None = None
    """The workspace and the hold that it settles."""


class _Event(msgspec.Struct, gc=False):
    id: Any = None
    type: Any = None
    subject: Any = None
    data: Any = None
    data_base64: Any = None


_decode = msgspec.json.Decoder(_Event, float_hook=Decimal).decode
_LENIENT: Final[dict[str, Any]] = {"parse_float": Decimal}


def events_of(media_type: str, headers: Iterable[tuple[str, str]], body: bytes) -> list[bytes]:
    """The events of a request's body, each as JSON.

    Raises:
        ProblemError: 400: it cannot be read as JSON, or as an array of events. 413: there are too many. 415: it is of another kind.
    """
    if media_type == names.CONTENT_TYPE_EVENT:
        return [body]
    if media_type == names.CONTENT_TYPE_BATCH:
        events = _batch(body)
        if len(events) > EVENTS_MAX:
            raise TooLargeError(f"The batch has {len(events)} events; at most {EVENTS_MAX} are taken at once.")
        return events
    attributes = _attributes(headers)
    if "specversion" not in attributes:
        raise ProblemError(
            f"Send {names.CONTENT_TYPE_EVENT}, {names.CONTENT_TYPE_BATCH}, or the event's data with its attributes in"
            " headers: ce-specversion, ce-id, ce-source, ce-type, ce-subject, ce-time.",
            status=415,
            title="Not read here",
        )
    if media_type not in {"", JSON_TYPE} and not media_type.endswith("+json"):
        raise ProblemError("The data of an event is JSON.", status=415, title="Not read here")
    return [_structured(attributes, body)]


def admit(index: int, event: bytes, caller: Caller, shards: int) -> Accepted:
    """Check one event.

    Raises:
        InvalidEventError: It can never be booked, or the key is not for it.
    """
    event_id, routing_key, line = check_event(event, shards)
    read = _read(line)
    producer = caller.producer
    if not caller.may_use(read.subject):
        raise InvalidEventError("workspace_not_allowed", "subject", "this key is not for this workspace")
    kind = producer_keys.USAGE if read.type == names.USAGE_TYPE else producer_keys.PAYMENT
    if kind not in producer.kinds:
        raise InvalidEventError("type_not_allowed", "type", f"this key may not publish an event of the kind {kind}")
    hold = _check_usage(read, caller) if kind == producer_keys.USAGE else None
    return Accepted(index, event_id, routing_key, line, None if hold is None else (read.subject, hold))


def id_of(event: bytes) -> str | None:
    """The id of an event that is refused, if it can be read."""
    try:
        event_id = _read(event).id
    except InvalidEventError:
        return None
    return event_id if isinstance(event_id, str) else None


def _check_usage(read: _Event, caller: Caller) -> str | None:
    """Check a usage; returns the hold that it names."""
    data = read.data if read.data is not None or read.data_base64 is None else _unpacked(read.data_base64)
    if not isinstance(data, dict):
        raise InvalidEventError("not_an_object", "data", "must be an object with tool and quantities")
    tool: Any = data.get("tool")
    check_names(read.subject, tool, data.get("provider"), data.get("model"))
    if not caller.may_name(tool):
        raise InvalidEventError("tool_not_allowed", "data.tool", "this key is not for this tool")
    exact_quantities(data.get("quantities"))
    return labels(tags=data.get("tags"), **{name: data.get(name) or None for name in TEXTS_MAX}).hold


def _read(line: bytes) -> _Event:
    try:
        return _decode(line)
    except (msgspec.MsgspecError, ArithmeticError, RecursionError):
        pass
    # Half surrogate pairs and numbers of any length, which msgspec does not take, are allowed in inputs and outputs.
    read = _loads(line)
    if not isinstance(read, dict):
        raise InvalidEventError("not_an_object", "event", "must be one JSON object")
    return _Event(**{name: read.get(name) for name in ("id", "type", "subject", "data", "data_base64")})


def _loads(text: bytes) -> Any:
    try:
        return json.loads(text, **_LENIENT)
    except (ValueError, ArithmeticError):
        raise InvalidEventError("bad_json", "event", "cannot be read as JSON") from None
    except RecursionError:
        raise InvalidEventError("too_deep", "event", "is nested too deeply") from None


def _unpacked(text: object) -> Any:
    try:
        return _loads(base64.b64decode(str(text), validate=True))
    except binascii.Error:
        raise InvalidEventError("bad_encoding", "data_base64", "is not base64") from None


def _batch(body: bytes) -> list[bytes]:
    try:
        return [bytes(event) for event in _split(body)]
    except msgspec.ValidationError:
        raise ProblemError("The body of a batch must be a JSON array of events.") from None
    except (msgspec.DecodeError, RecursionError):
        return _split_leniently(body)


def _split_leniently(body: bytes) -> list[bytes]:
    """Split a batch that msgspec does not read, because of half surrogate pairs for example."""
    unreadable = ProblemError("The body cannot be read as a JSON array of events.")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise ProblemError(f"The body is not UTF-8 at byte {error.start}.") from None
    decoder, events, at = json.JSONDecoder(), [], _after_white(text, 0)
    if text[at : at + 1] != "[":
        raise unreadable
    at = _after_white(text, at + 1)
    while text[at : at + 1] != "]":
        try:
            _, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            raise unreadable from None
        events.append(text[at:end].encode())
        at = _after_white(text, end)
        if text[at : at + 1] == ",":
            at = _after_white(text, at + 1)
            if text[at : at + 1] == "]":
                raise unreadable
        elif text[at : at + 1] != "]":
            raise unreadable
    if _after_white(text, at + 1) != len(text):
        raise unreadable
    return events


def _after_white(text: str, at: int) -> int:
    while at < len(text) and text[at] in _WHITE:
        at += 1
    return at


def _attributes(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The attributes of an event in binary mode. A header's value may be percent-encoded."""
    attributes: dict[str, str] = {}
    for header, value in headers:
        match = _ATTRIBUTE.fullmatch(header.lower())
        if match is None or match[1] in {"data", "data_base64"}:
            continue
        if match[1] in attributes:
            raise ProblemError(f"The header {match[0]} is given twice; readers differ on which counts.")
        attributes[match[1]] = unquote(value)
    return attributes


def _structured(attributes: Mapping[str, str], body: bytes) -> bytes:
    """One event in structured mode; its data stays as it came."""
    data = body.strip()
    if data:
        _check_alone(data)
    head = msgspec.json.encode(attributes)
    return head[:-1] + b',"data":' + data + b"}" if data else head


def _check_alone(data: bytes) -> None:
    """See that the data is one JSON value, which cannot turn into attributes beside it."""
    try:
        _whole(data)
    except (msgspec.MsgspecError, RecursionError):
        try:
            _loads(data)
        except InvalidEventError:
            raise ProblemError("The data cannot be read as JSON.") from None
