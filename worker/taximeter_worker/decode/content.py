"""What an event says, apart from how it was written: its payload as stored and its fingerprint.

The fingerprint decides for ever whether a repeated id is a retry or a conflict, so its form is fixed: see
docs/decisions/0050-fingerprint-of-an-event.md before changing a byte of it.
"""

from __future__ import annotations

import hashlib
import re
from decimal import Decimal
from typing import Final

import msgspec

from taximeter import names

FINGERPRINT_BYTES: Final = 16

Member = tuple[bytes, bytes, bytes]
"""Something stored but not priced: its name in quotes and its value, both as written, and `canonical` of the value."""

# The other escapes (\n, \" …) are short already: so does the encoder write them.
_OTHER_ESCAPE = re.compile(rb"\\[u/]")

_QUOTE: Final = ord('"')
_BRACE: Final = ord("{")
# A copy of the empty digest costs half of what making one costs.
EMPTY: Final = hashlib.blake2b(digest_size=FINGERPRINT_BYTES)
head = msgspec.json.Encoder(order="sorted", decimal_format="number").encode
_decode = msgspec.json.Decoder(float_hook=Decimal).decode


def payload(members: list[Member]) -> bytes | None:
    """The JSON object to store, each value byte for byte as it was given; None if there is none."""
    if not members:
        return None
    return b"{" + b",".join([name + b":" + value for name, value, _ in members]) + b"}"


def usage_fingerprint(
    event_id: str,
    tool: str,
    provider: str | None,
    model: str | None,
    quantities: dict[str, int | Decimal],
    members: list[Member],
) -> bytes:
    """16 bytes over id and content of a usage.

    The id is in it so that two ids whose keys collide end as a conflict (`taximeter_db.events.event_key`). Quantities are in their normalised form. Key order, white space and escapes do not matter anywhere.
    """
    digest = EMPTY.copy()
    digest.update(head((names.USAGE_TYPE, event_id, tool, provider, model, quantities)))
    # The head is one JSON array and the members are length-prefixed: no two contents share an encoding.
    for name, value in sorted([(canonical(name), value) for name, _, value in members]) if members else ():
        digest.update(b"%d:%b%d:" % (len(name), name, len(value)))
        digest.update(value)
    return digest.digest()


def payment_fingerprint(
    event_id: str, amount: int, kind: str, transaction: dict[str, str] | None, note: str | None
) -> bytes:
    """16 bytes over id and content of a payment; ``amount`` in picodollars."""
    digest = EMPTY.copy()
    digest.update(head((names.PAYMENT_TYPE, event_id, str(amount), kind, transaction, note)))
    return digest.digest()


def canonical(value: bytes) -> bytes:
    """One form for all ways to write a JSON value: keys sorted, no white space, the fewest escapes.

    Numbers keep their digits. What msgspec cannot hold (lone surrogates, integers beyond 64 bits) stays as it
    was written; it cannot be mistaken for a canonical form, since that can always be decoded.
    """
    # Looking for one byte is far cheaper than the expression, and most values have no escape at all.
    if value[0] == _QUOTE and (b"\\" not in value or _OTHER_ESCAPE.search(value) is None):
        return value
    try:
        return head(_decode(value))
    except (msgspec.MsgspecError, ArithmeticError, ValueError, RecursionError):
        return value


def quotes_of(value: bytes) -> int:
    """The quotes in a JSON value as written. A text without an escape has two, which spares counting through it."""
    return 2 if value[0] == _QUOTE and b"\\" not in value else value.count(b'"')


def member(name: bytes, value: bytes) -> Member:
    """A member from its name and value as written."""
    return name, value, canonical(value)


def object_member(name: bytes, value: bytes) -> Member:
    """A member whose value must be an object without duplicate names.

    Raises:
        ValueError: It is another value, holds a duplicate name, or may do so.
    """
    # A name that came twice is gone from the canonical form, and its quotes with it. An escape could hide that by
    # turning into a quote there.
    made = canonical(value)
    undecoded = made is value
    if value[0] != _BRACE or undecoded or _OTHER_ESCAPE.search(value) or value.count(b'"') != made.count(b'"'):
        raise ValueError
    return name, value, made
