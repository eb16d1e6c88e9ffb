"""How a message carries its events: compressed or not, and CloudEvents' binary mode, whose attributes are headers.

What comes out is always structured mode in plain JSON, so the rest of the decoder knows one form.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import zstandard
from msgspec import Raw

from taximeter import names
from taximeter_worker.decode.result import EventRejectedError

JSON_TYPE: Final = "application/json"
_GZIP, _ZSTD = "gzip", "zstd"
_MAGIC: Final = {b"\x1f\x8b": _GZIP, b"\x28\xb5\x2f\xfd": _ZSTD}
_SAME_NAME: Final = {"x-gzip": _GZIP, "zstandard": _ZSTD}
_GZIP_BITS: Final = 31
_ZSTD_WINDOW_BYTES_MAX: Final = 32 * 1024 * 1024
_EXPANSION_MAX: Final = 1000
"""Some formats expand further; this is for estimates alone."""

_ATTRIBUTE: Final = re.compile(r"(?:ce[-_]|cloudEvents[:_])([a-z0-9]+)", re.ASCII | re.IGNORECASE)
"""The prefixes of the bindings: AMQP's ``cloudEvents:`` and ``cloudEvents_``, HTTP's ``ce-``, Kafka's ``ce_``."""
_check = msgspec.json.Decoder(Raw).decode


def encoding_of(body: bytes, properties: Mapping[str, Any] | None) -> str | None:
    """How the body is encoded: ``gzip``, ``zstd``, another name as given, or None where it is as it is.

    Without a name the first bytes tell, which is all that a list item has; no JSON begins like that.
    """
    declared = str((properties or {}).get("content_encoding") or "").strip().lower()
    if declared in {_GZIP, _ZSTD}:
        return declared
    for magic, encoding in _MAGIC.items():
        if body.startswith(magic):
            return encoding
    return _SAME_NAME.get(declared, declared or None)


def bytes_estimate(body: bytes, properties: Mapping[str, Any] | None, message_bytes_max: int) -> int:
    """What a message may come to in memory once it is opened."""
    if encoding_of(body, properties) in {_GZIP, _ZSTD}:
        return max(len(body), min(len(body) * _EXPANSION_MAX, message_bytes_max))
    return len(body)


def opened(body: bytes, properties: Mapping[str, Any] | None, bytes_max: int) -> bytes:
    """The body without its compression.

    Raises:
        EventRejectedError: ``too_large``, ``bad_encoding`` or ``unsupported_content_type``.
    """
    encoding = encoding_of(body, properties)
    if encoding is None:
        return body
    if encoding in {_GZIP, _ZSTD}:
        try:
            plain = _gunzip(body, bytes_max) if encoding == _GZIP else _unzstd(body, bytes_max)
        except (zlib.error, zstandard.ZstdError, EOFError):
            raise EventRejectedError(
                "bad_encoding", f"The body is not {encoding}, or is cut off, although it claims to be {encoding}."
            ) from None
        if len(plain) > bytes_max:
            raise EventRejectedError(
                "too_large", f"The message has more than {bytes_max} bytes once it is opened. Send smaller batches."
            )
        return plain
    # Most senders write the name of a character set here, and it is as often wrong; what counts is whether it is UTF-8.
    try:
        str(body, "utf-8")
    except UnicodeDecodeError:
        shown = ascii(encoding[:32])[1:-1]
        raise EventRejectedError(
            "unsupported_content_type",
            f"The content encoding {shown} is not known here; send gzip, zstd or plain UTF-8.",
        ) from None
    return body


def _gunzip(body: bytes, bytes_max: int) -> bytes:
    plain = b""
    while body:
        member = zlib.decompressobj(_GZIP_BITS)
        plain += member.decompress(body, bytes_max + 1 - len(plain))
        if len(plain) > bytes_max:
            break
        if not member.eof:
            raise EOFError
        body = member.unused_data
    return plain


def _unzstd(body: bytes, bytes_max: int) -> bytes:
    opener = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES_MAX)
    with opener.stream_reader(body, read_across_frames=True) as reader:
        return reader.read(bytes_max + 1)


def attributes_of(content_type: str | None, properties: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The attributes of an event in binary mode; None where the message is in structured mode.

    Raises:
        EventRejectedError: ``duplicate_key``: two headers give one attribute.
    """
    headers = (properties or {}).get("headers")
    if not isinstance(headers, Mapping) or media_type_of(content_type) in {
        names.CONTENT_TYPE_EVENT,
        names.CONTENT_TYPE_BATCH,
    }:
        return None
    attributes: dict[str, Any] = {}
    for header, value in headers.items():
        if match := _ATTRIBUTE.fullmatch(header):
            attribute = match[1].lower()
            if attribute == "data" or attributes.setdefault(attribute, value) != value:
                raise EventRejectedError(
                    "duplicate_key", f"Two headers give the attribute {attribute}; readers differ on which counts."
                )
    return attributes if "specversion" in attributes else None


def structured(attributes: dict[str, Any], body: bytes, content_type: str | None) -> bytes:
    """The event of binary mode in structured mode: its data byte for byte as it was given.

    Raises:
        EventRejectedError: ``unsupported_content_type``: the data is said to be something else than JSON.
        msgspec.MsgspecError, RecursionError: The data is not JSON.
    """
    media_type = media_type_of(content_type)
    if media_type and media_type != JSON_TYPE and not media_type.endswith(("+json", "/json")):
        raise EventRejectedError(
            "unsupported_content_type", f"In binary mode the data must be JSON, so its content type {JSON_TYPE}."
        )
    head = json.dumps(attributes if content_type is None else {**attributes, "datacontenttype": content_type})
    if not body:
        return head.encode()
    # One whole value and nothing behind it: nothing in the data can pass for an attribute.
    _check(body)
    return b'%b,"data":%b}' % (head[:-1].encode(), body)


def media_type_of(content_type: str | None) -> str:
    """A content type without parameters, in lower case."""
    return (content_type or "").partition(";")[0].strip().lower()


def carried(properties: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The properties that still mean something for an event that was taken out of its message."""
    if not properties:
        return None
    kept = {name: value for name, value in properties.items() if name != "content_encoding"}
    headers = kept.get("headers")
    if isinstance(headers, Mapping):
        others = {name: value for name, value in headers.items() if not _ATTRIBUTE.fullmatch(name)}
        if others:
            kept["headers"] = others
        else:
            del kept["headers"]
    return kept or None


def as_text(properties: Mapping[str, Any] | None) -> str | None:
    """Properties as they are kept with an entry: JSON in ASCII, the same for the same properties."""
    return json.dumps(properties, sort_keys=True, allow_nan=False) if properties else None
