"""What a list item is: a bare body, or a body in the envelope that kombu's Redis transport makes."""

from __future__ import annotations

import base64
import binascii
from typing import Any, NamedTuple

import msgspec

from taximeter_worker.consume.brokers.amqp_properties import plain

_KOMBU_DEFAULTS = ("utf-8", "binary")
_SPACE = b" \t\r\n"


class _Properties(msgspec.Struct):
    body_encoding: str | None = None


class _Envelope(msgspec.Struct):
    body: str
    properties: _Properties
    content_type: str | None = msgspec.field(default=None, name="content-type")
    content_encoding: str | None = msgspec.field(default=None, name="content-encoding")
    headers: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_Envelope).decode


class Unwrapped(NamedTuple):
    """What a list item holds. A bare one has neither content type nor properties: the decoder tells it by what is in it."""

    body: bytes
    content_type: str | None = None
    properties: dict[str, Any] | None = None


def unwrap(item: bytes) -> Unwrapped:
    """Take a list item out of kombu's envelope, if it is in one. Never raises."""
    start = item[:64].lstrip(_SPACE)[:1]
    # An event names its specversion and an envelope cannot: there the body's quotes are encoded or escaped.
    if start == b"{" and b'"specversion"' not in item:
        try:
            envelope = _decode(item)
            based = envelope.properties.body_encoding == "base64"
            body = base64.b64decode(envelope.body, validate=True) if based else envelope.body.encode()
            # Not deeper than what is written with an entry may be: a table may hold far more levels than a stack.
            given = {"content_encoding": envelope.content_encoding, "headers": plain(envelope.headers)}
            properties = {name: value for name, value in given.items() if value and value not in _KOMBU_DEFAULTS}
            return Unwrapped(body, envelope.content_type, properties or None)
        except (msgspec.DecodeError, UnicodeError, binascii.Error, RecursionError, ValueError):
            pass
    return Unwrapped(item)
