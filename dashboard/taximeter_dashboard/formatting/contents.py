"""Stored inputs, outputs and metadata as text to look at. They come from strangers: only ever text, never markup.

A payload is a JSON object whose values are the bytes that came in. The log's reader may hand over its beginning alone.
"""

from __future__ import annotations

import json
import re
from typing import Final

import msgspec

EXCERPT_CHARACTERS: Final = 80
EXCERPT_BYTES: Final = 64 * 1024
"""Of a payload, to find the excerpts in: a conversation, its last message and the answer behind it."""
WHOLE_BYTES_MAX: Final = 256 * 1024
HEAD_BYTES: Final = 64 * 1024
PAYLOAD_BYTES_MAX: Final = 32 * 1024 * 1024
"""More than an event may have; a message of the broker is smaller."""
PARTS: Final = ("input", "output", "metadata")

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_BLANK = re.compile(r"\s+")
_CUT_ESCAPE = re.compile(rb"\\(?:u[0-9a-fA-F]{0,3})?\Z")


class _Message(msgspec.Struct):
    content: msgspec.Raw


_messages = msgspec.json.Decoder(list[_Message]).decode
_split_quickly = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_COLON_OR_COMMA = re.compile(r"[\s:,{]*")


class Part(msgspec.Struct, frozen=True):
    """One of input, output, metadata, ready to show. `size` in bytes as stored; `cut` if this is its beginning."""

    name: str
    text: str
    size: int
    cut: bool


def visible(text: str) -> str:
    """Text that HTML can hold: control characters by their pictures, lone surrogates by their number."""
    text = _CONTROL.sub(
        lambda match: chr(0x2400 + ord(match[0])) if ord(match[0]) < 0x20 else "\N{REPLACEMENT CHARACTER}", text
    )
    return text.encode("utf-8", "backslashreplace").decode()


def _split(payload: bytes) -> dict[str, bytes]:
    """The values of a payload, as they were written.

    Raises:
        ValueError: It is not a JSON object.
    """
    try:
        return {name: bytes(value) for name, value in _split_quickly(payload).items()}
    except msgspec.MsgspecError:
        pass
    # msgspec refuses lone surrogates, which the ledger keeps; the standard library finds where each value ends.
    text, values, place = payload.decode(), {}, 0
    read = json.JSONDecoder().raw_decode
    try:
        while place < len(text.rstrip()) - 1:
            name, end = read(text, _skip(text, place))
            start = _skip(text, end)
            _, place = read(text, start)
            values[str(name)] = text[start:place].encode()
    except RecursionError as error:
        raise ValueError("too deep") from error
    return values


def _skip(text: str, place: int) -> int:
    match = _COLON_OR_COMMA.match(text, place)
    return match.end() if match else place


def parts(payload: bytes) -> list[Part]:
    """The parts of a whole payload, each pretty, long ones cut."""
    try:
        values = _split(payload)
    except ValueError:
        return [
            Part(
                "contents",
                visible(payload[:HEAD_BYTES].decode("utf-8", "replace")),
                len(payload),
                len(payload) > HEAD_BYTES,
            )
        ]
    return [_part(name, values[name]) for name in PARTS if name in values]


def _part(name: str, raw: bytes) -> Part:
    text = _pretty(raw)
    cut = len(raw) > WHOLE_BYTES_MAX
    return Part(name, visible(text[:HEAD_BYTES] if cut else text), len(raw), cut)


def _pretty(raw: bytes) -> str:
    if raw.startswith(b'"'):
        return str(json.loads(raw))
    try:
        # It moves no digit: numbers stay as they were written.
        return msgspec.json.format(raw, indent=2).decode("utf-8", "replace")
    except (msgspec.MsgspecError, RecursionError):
        return raw.decode("utf-8", "replace")


def excerpts(beginning: bytes, *, whole: bool) -> tuple[str, str]:
    """The first characters of input and of output, in one line each, as far as the beginning of a payload shows them."""
    if whole:
        try:
            values = _split(beginning)
        except ValueError:
            return "", ""
        return _line(_last_message(values.get("input", b""))), _line(_last_message(values.get("output", b"")))
    first, rest = _first_value(beginning, b"input", b"{")
    if first is None:  # it does not end here, or is not there
        found = beginning.startswith(_head(b"input", b"{"))
        return (_line(rest, cut=True), "…") if found else ("", _cut_output(beginning, b"{"))
    return _line(_last_message(first)), _cut_output(rest, b",")


def _head(name: bytes, before: bytes) -> bytes:
    return before + b'"' + name + b'":'


def _cut_output(beginning: bytes, before: bytes) -> str:
    value, rest = _first_value(beginning, b"output", before)
    if value is not None:
        return _line(_last_message(value))
    return _line(rest, cut=True) if beginning.startswith(_head(b"output", before)) else ""


def _first_value(beginning: bytes, name: bytes, before: bytes) -> tuple[bytes | None, bytes]:
    """The value of this name with which a beginning begins, None if it is another's or does not end; and what follows."""
    head = _head(name, before)
    if not beginning.startswith(head):
        return None, beginning
    rest = beginning[len(head) :]
    try:
        # Its last letter may have been cut in two.
        text = rest.decode("utf-8", "ignore")
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None, rest
    value = text[:end].encode()
    return value, rest[len(value) :]


def _last_message(raw: bytes) -> bytes:
    """The last message of a conversation, which says more in one line than the brackets before the first."""
    if raw.lstrip().startswith(b"["):
        try:
            return bytes(_messages(raw)[-1].content)
        except (msgspec.MsgspecError, UnicodeDecodeError, IndexError):
            pass
    return raw


def _line(raw: bytes, *, cut: bool = False) -> str:
    raw = raw.lstrip()[: EXCERPT_CHARACTERS * 12]
    if raw.startswith(b'"'):
        body = raw[1:]
        end = _closing_quote(body)
        body = _CUT_ESCAPE.sub(b"", body) if end is None else body[:end]
        try:
            text = str(json.loads(b'"' + body.decode("utf-8", "ignore").encode() + b'"'))
        except ValueError:
            text = body.decode("utf-8", "replace")
        cut = cut or end is None
    else:
        text = raw.decode("utf-8", "replace")
    text = visible(_BLANK.sub(" ", text).strip())
    if len(text) > EXCERPT_CHARACTERS:
        return text[: EXCERPT_CHARACTERS - 1] + "…"
    return text + "…" if cut and text else text


def _closing_quote(body: bytes) -> int | None:
    place = 0
    while place < len(body):
        if body[place] == 0x5C:
            place += 2
            continue
        if body[place] == 0x22:
            return place
        place += 1
    return None
