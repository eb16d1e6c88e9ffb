"""Messages whose properties py-amqp cannot read: nested beyond Python's stack, times after the year 9999, text that is not UTF-8.

RabbitMQ passes on whatever properties a sender gave. Where reading them fails, py-amqp fails in the middle of a connection,
and the worker connects again: the broker then delivers the same message again, until it gives up on it, and from the dead
queue without end. So the properties are read a second time, piece by piece, and what cannot be understood is kept as bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

import amqp
from amqp.serialization import decode_properties_basic, loads

UNREADABLE: Final = "unreadable"
"""The only header of a message whose headers cannot be read: all of them, as the bytes that were sent."""

Frame = tuple[int, int, Any]
_HEADER_FRAME: Final = 2
_PREFIX_BYTES: Final = 12
"""Class, weight and the body's size stand before the properties."""
_TEXT, _TABLE, _OCTET, _TIME = "text", "table", "octet", "time"
_PROPERTIES: Final = (_TEXT, _TEXT, _TABLE, _OCTET, _OCTET, *[_TEXT] * 4, _TIME, *[_TEXT] * 4)
"""Kinds of the properties, from ``content_type`` and ``headers`` on, in the order of their flags."""
_TEXT_BYTES_MAX: Final = 255
_FIRST_FLAG: Final = 0x8000
_FAULTS: Final = (RecursionError, ValueError, OverflowError, ArithmeticError, OSError, LookupError, struct.error)


def tolerant(on_frame: Callable[[Frame], Any]) -> Callable[[Frame], Any]:
    """py-amqp's handler of frames, which then takes messages with any properties."""

    def on_any_frame(frame: Frame) -> Any:
        if frame[0] != _HEADER_FRAME:
            return on_frame(frame)
        try:
            return on_frame(frame)
        except (*_FAULTS, amqp.AMQPError):
            if is_readable(frame[2]):
                raise
        return on_frame((frame[0], frame[1], readable(frame[2])))

    return on_any_frame


def is_readable(header: Any) -> bool:
    """Whether py-amqp can read the properties in a header frame."""
    try:
        decode_properties_basic(header, _PREFIX_BYTES)
    except (*_FAULTS, amqp.AMQPError):
        return False
    return True


def readable(header: Any) -> bytes:
    """A header frame that says the same in properties which py-amqp can read; those stay as they are, byte for byte."""
    octets = bytes(header)
    kept, flags = b"", 0
    try:
        (said,) = struct.unpack_from(">H", octets, _PREFIX_BYTES)
        start, flag = _PREFIX_BYTES + 2, _FIRST_FLAG
        for kind in _PROPERTIES:
            if said & flag:
                end = start + _LENGTHS[kind](octets, start)
                if end > len(octets):
                    break
                kept += _REPLACED.get(kind, bytes)(octets[start:end])
                flags |= flag
                start = end
            flag >>= 1
    except (struct.error, IndexError):
        pass  # the frame ends before what it says is in it
    return octets[:_PREFIX_BYTES] + struct.pack(">H", flags) + kept


def _readable_text(octets: bytes) -> bytes:
    """A short text, its length before it, in UTF-8."""
    try:
        octets[1:].decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        text = octets[1:].decode("utf-8", "replace").encode()[:_TEXT_BYTES_MAX].decode("utf-8", "ignore").encode()
        return bytes((len(text),)) + text
    return octets


def _readable_table(octets: bytes) -> bytes:
    """A table, its length before it; one that cannot be read becomes the only value of another."""
    try:
        loads("F", octets, 0)
    except (*_FAULTS, amqp.AMQPError):
        name, inside = UNREADABLE.encode(), octets[4:]
        item = struct.pack(">B", len(name)) + name + struct.pack(">cI", b"x", len(inside)) + inside
        return struct.pack(">I", len(item)) + item
    return octets


_LENGTHS: Final[dict[str, Callable[[bytes, int], int]]] = {
    _TEXT: lambda octets, start: 1 + octets[start],
    _TABLE: lambda octets, start: 4 + int(struct.unpack_from(">I", octets, start)[0]),
    _OCTET: lambda _octets, _start: 1,
    _TIME: lambda _octets, _start: 8,
}
_REPLACED: Final[dict[str, Callable[[bytes], bytes]]] = {_TEXT: _readable_text, _TABLE: _readable_table}
