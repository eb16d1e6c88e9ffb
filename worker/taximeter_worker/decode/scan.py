"""Cuts JSON arrays and objects into their elements without parsing or recursing.

The parsers give up on a whole message for one bad element; this scanner finds where each element begins and
ends, whatever is inside. It knows strings, brackets and commas, and nothing else.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from taximeter_worker.decode.result import EventRejectedError

JSON_SPACE: Final = b" \t\n\r"

_CLOSING: Final = {ord("["): ord("]"), ord("{"): ord("}")}

# Possessive, so that a long string costs no backtracking. A quote that opens no complete string matches alone.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["\[\]{},]', re.DOTALL)
_BRACKETS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[{]++|[\]}]++', re.DOTALL)
_MEMBER = re.compile(rb'\s*+("[^"\\]*+(?:\\.[^"\\]*+)*+")\s*+:\s*+(.*)', re.DOTALL)


class Pieces(msgspec.Struct):
    """The elements of an array or object, and what could not be cut.

    Attributes:
        elements: Bytes of each element, without the white space around it.
        rest: What follows the last complete element when the text is malformed; None when it is well cut.
        rest_start: Offset of ``rest`` in the text.
    """

    elements: list[bytes]
    rest: bytes | None = None
    rest_start: int = 0


def cut(text: bytes, elements_max: int | None = None) -> Pieces:
    """Cut the outermost array or object of ``text`` at its commas.

    The text must begin (after white space) with ``[`` or ``{``. The elements themselves may be malformed. An
    outer bracket that never closes, anything after it and a trailing comma become the ``rest``; an empty place between
    commas is an element of a comma.

    Raises:
        EventRejectedError: ``too_large``: more than ``elements_max`` elements.
    """
    pieces = Pieces([])
    depth = 0
    opened = start = 0
    for token in _TOKEN.finditer(text):
        mark = text[token.start()]
        if mark == 0x22:
            if token.end() == token.start() + 1:
                break  # a string that never ends
        elif mark in b"[{":
            depth += 1
            if depth == 1:
                opened = token.start()
                start = token.end()
        elif mark == 0x2C and depth == 1:
            # An empty place is one bad element, told apart from its neighbours like any other.
            pieces.elements.append(text[start : token.start()].strip(JSON_SPACE) or b",")
            start = token.end()
            if len(pieces.elements) == elements_max:
                raise EventRejectedError(
                    "too_large", f"The message holds more than {elements_max} events; send smaller batches."
                )
        elif mark in b"]}":
            depth -= 1
            if depth == 0:
                return _finish(text, pieces, start, token.start(), closes=_CLOSING[text[opened]] == mark)
    return _leave(text, pieces, start)


def _finish(text: bytes, pieces: Pieces, start: int, end: int, *, closes: bool) -> Pieces:
    """Take the last element, which ends at the bracket at ``end``; it is malformed unless that one ``closes``."""
    element = text[start:end].strip(JSON_SPACE)
    if element:
        pieces.elements.append(element)
    elif pieces.elements:
        return _leave(text, pieces, start - 1)  # a trailing comma
    if not closes:
        return _leave(text, pieces, end)
    if text[end + 1 :].strip(JSON_SPACE):
        return _leave(text, pieces, end + 1)
    return pieces


def _leave(text: bytes, pieces: Pieces, start: int) -> Pieces:
    rest = text[start:]
    pieces.rest = rest.strip(JSON_SPACE) or b","
    pieces.rest_start = start + len(rest) - len(rest.lstrip(JSON_SPACE))
    return pieces


def members(text: bytes) -> list[tuple[bytes, bytes]]:
    """Names (quoted, as written) and values of a valid JSON object, byte for byte."""
    found = (_MEMBER.fullmatch(element) for element in cut(text).elements)
    return [(match[1], match[2]) for match in found if match]


def deeper_than(text: bytes, levels: int) -> bool:
    """Whether arrays and objects in ``text`` are nested beyond ``levels``."""
    if text.count(b"[") + text.count(b"{") <= levels:
        return False
    depth = 0
    for token in _BRACKETS.finditer(text):
        mark = text[token.start()]
        if mark in b"[{":
            depth += token.end() - token.start()
            if depth > levels:
                return True
        elif mark in b"]}":
            depth -= token.end() - token.start()
    return False
