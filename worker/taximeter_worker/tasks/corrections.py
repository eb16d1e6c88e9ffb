"""Correcting a quarantined event member by member, and leaving every other byte as it was received.

The event is cut, not parsed: so one that is nested too deep, holds NaN or gives a name twice can be corrected too, and an
input that nobody touches is stored byte for byte as its producer wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from taximeter_worker.decode import scan
from taximeter_worker.errors import CorrectionError

TEXTS: Final = frozenset(
    (
        *("specversion", "id", "source", "type", "subject", "time"),
        *("data.tool", "data.provider", "data.model", "data.amount", "data.kind", "data.note"),
    )
)
"""Members that are texts by contract: ``specversion=1.0`` means the text."""

_REPAIRABLE: Final = "Give the whole corrected event in a file instead: --with FILE."


def corrected(event: bytes, changes: Iterable[str] = (), drops: Iterable[str] = ()) -> bytes:
    """An event with some members set and others left out.

    Args:
        event: The bytes as received.
        changes: ``PATH=VALUE``, such as ``data.quantities.input_tokens=12``. A value is JSON where it can be read as such,
            else a text; members that are texts by contract take it as it is.
        drops: Paths of members to leave out.

    Raises:
        CorrectionError: A change is malformed, or the event cannot be cut into members.
    """
    for change in changes:
        path, equals, value = change.partition("=")
        if not equals:
            raise CorrectionError(f"{change[:80]!r} is not a change; write PATH=VALUE, such as data.tool=chat.")
        event = _put(event, _names(path), _value(path, value))
    for path in drops:
        event = _put(event, _names(path), None)
    return event


def _names(path: str) -> list[str]:
    names = path.split(".", 2) if path.startswith("data.") else [path]
    if not all(names):
        raise CorrectionError(
            f"{path[:80]!r} names no member; write for example id, data.tool or data.quantities.pages."
        )
    return names


def _value(path: str, text: str) -> bytes:
    if path in TEXTS and not (text.startswith('"') and text.endswith('"') and len(text) > 1):
        return json.dumps(text).encode()
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return json.dumps(text).encode()
    return text.strip().encode("utf-8", "surrogatepass")


def _put(event: bytes, path: list[str], value: bytes | None) -> bytes:
    """Set a member to a JSON value, or leave it out. One that was given twice is given once afterwards."""
    name, rest = path[0], path[1:]
    kept: list[tuple[bytes, bytes]] = []
    found: bytes | None = None
    place = 0
    for written, old in _members(event):
        if json.loads(written) == name:
            found, place = old, len(kept) if found is None else place
        else:
            kept.append((written, old))
    if found is None:
        place = len(kept)
    if rest:
        if found is None and value is None:
            return event
        value = _put(found if found is not None else b"{}", rest, value)
    if value is not None:
        kept.insert(place, (json.dumps(name).encode(), value))
    return b"{" + b",".join(written + b":" + member for written, member in kept) + b"}"


def _members(text: bytes) -> list[tuple[bytes, bytes]]:
    """Names and values of an object, none left out.

    Raises:
        CorrectionError: The text is not an object that can be cut into members.
    """
    if not text.lstrip(scan.JSON_SPACE).startswith(b"{"):
        raise CorrectionError(f"This is not an event with members to set. {_REPAIRABLE}")
    pieces = scan.cut(text)
    members = scan.members(text)
    try:
        readable = all(isinstance(json.loads(written), str) for written, _ in members)
    except ValueError:
        readable = False
    if pieces.rest is not None or len(members) != len(pieces.elements) or not readable:
        raise CorrectionError(f"The event is malformed, so that its members cannot be told apart. {_REPAIRABLE}")
    return members
