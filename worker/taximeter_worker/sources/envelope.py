"""What a list item is: a bare body, or a body in the envelope that kombu's Redis transport makes."""

from __future__ import annotations

import base64
import binascii

import msgspec

from taximeter import names

_SPACE = b" \t\r\n"


class _Properties(msgspec.Struct):
    body_encoding: str | None = None


class _Envelope(msgspec.Struct):
    body: str
    properties: _Properties
    content_type: str | None = msgspec.field(default=None, name="content-type")


_decode = msgspec.json.Decoder(_Envelope).decode


def unwrap(item: bytes) -> tuple[bytes, str | None]:
    """The body of a list item and its content type.

    A bare array is a batch, everything else is taken for a single event: if it is neither an event nor an envelope, the
    decoder says so and the item ends in quarantine. Never raises.
    """
    start = item[:64].lstrip(_SPACE)[:1]
    if start == b"[":
        return item, names.CONTENT_TYPE_BATCH
    # An event names its specversion and an envelope cannot: there the body's quotes are encoded or escaped.
    if start == b"{" and b'"specversion"' not in item:
        try:
            envelope = _decode(item)
            if envelope.properties.body_encoding == "base64":
                return base64.b64decode(envelope.body, validate=True), envelope.content_type
            return envelope.body.encode(), envelope.content_type
        except (msgspec.DecodeError, UnicodeError, binascii.Error, RecursionError, ValueError):
            pass
    return item, names.CONTENT_TYPE_EVENT
