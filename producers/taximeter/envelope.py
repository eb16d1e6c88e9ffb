"""Checking the envelope of an event that somebody else built, just enough to route and keep it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from taximeter import names
from taximeter.errors import InvalidEventError
from taximeter.events import ROUTING_KEYS, check_event_id, check_workspace_id, encode_json


class _Envelope(msgspec.Struct, gc=False):
    specversion: Any = None
    type: Any = None
    id: Any = None
    subject: Any = None
    time: Any = None


_decode = msgspec.json.Decoder(_Envelope).decode


def check_event(event: Mapping[str, Any] | bytes | str, shards: int = 1) -> tuple[str, str, bytes]:
    """Check the envelope of a whole event and bring it onto one line.

    Quantities, amounts and the like are left to the worker, which quarantines what it cannot book.

    Returns:
        The event id, the routing key and the line of JSON without the line feed. Bytes are kept as they are,
        except that line breaks between tokens become spaces.

    Raises:
        InvalidEventError: It is not an event, or cannot be routed or told apart from others.
    """
    if isinstance(event, Mapping):
        line = encode_json(dict(event), "event", decimals_as_numbers=True)
    elif isinstance(event, str):
        line = _utf8(event)
    else:
        line = bytes(event)
    envelope = _read(line)
    if envelope.specversion != "1.0":
        raise InvalidEventError("unsupported_version", "specversion", 'must be "1.0"')
    routing_key = ROUTING_KEYS.get(envelope.type) if isinstance(envelope.type, str) else None
    if routing_key is None:
        raise InvalidEventError("unsupported_version", "type", f"must be one of {', '.join(ROUTING_KEYS)}")
    event_id = check_event_id(envelope.id)
    workspace_id = check_workspace_id(envelope.subject)
    if routing_key == names.USAGE_ROUTING_KEY:
        routing_key = names.usage_routing_key(workspace_id, shards)
    if not isinstance(envelope.time, str) or not envelope.time:
        raise InvalidEventError("bad_time", "time", "must be an RFC 3339 text with an offset")
    return event_id, routing_key, line.strip().replace(b"\r", b" ").replace(b"\n", b" ")


def _utf8(event: str) -> bytes:
    try:
        return event.encode()
    except UnicodeEncodeError:
        raise InvalidEventError("bad_encoding", "event", "holds half a surrogate pair outside a JSON escape") from None


def _read(line: bytes) -> _Envelope:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise InvalidEventError("bad_encoding", "event", f"is not UTF-8 at byte {error.start}") from None
    if text.startswith("\ufeff") or "\0" in text:
        raise InvalidEventError("bad_encoding", "event", "must be UTF-8 without a byte-order mark, not UTF-16 or 32")
    try:
        envelope = _decode(line)
    except msgspec.ValidationError:
        raise InvalidEventError("not_an_object", "event", "must be one JSON object") from None
    except msgspec.DecodeError:
        envelope = _read_leniently(text)
    except RecursionError:
        raise InvalidEventError("too_deep", "event", "is nested too deeply") from None
    return envelope


def _read_leniently(text: str) -> _Envelope:
    # msgspec refuses escapes of half surrogate pairs, which are allowed in input, output and metadata.
    try:
        event = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise InvalidEventError("bad_json", "event", f"cannot be read as JSON: {error}") from None
    except RecursionError:
        raise InvalidEventError("too_deep", "event", "is nested too deeply") from None
    if not isinstance(event, dict):
        raise InvalidEventError("not_an_object", "event", "must be one JSON object")
    return _Envelope(**{field: event.get(field) for field in ("specversion", "type", "id", "subject", "time")})


def _refuse_constant(word: str) -> None:
    raise InvalidEventError("bad_json", "event", f"holds {word}, which is not JSON")
