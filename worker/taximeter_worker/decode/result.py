"""What the parts of the decoder share: the limits, the result, and the refusal of one event."""

from __future__ import annotations

from typing import Final

import msgspec

from taximeter import labels, limits
from taximeter_db.ledger.events import Payment, Rejected, Usage

PRICED_NAMES: Final = frozenset(("tool", "provider", "model", "quantities"))
PAYLOAD_NAMES: Final = ("input", "output", "metadata")
_OTHER_COLUMNS: Final = {"user": "user_id", "hold": "hold_id"}
LABEL_COLUMNS: Final = {name: _OTHER_COLUMNS.get(name, name) for name in labels.NAMES}
"""The labels, each with its column of the log. To the fingerprint they are what they were before they meant something: members."""
USAGE_DATA_NAMES: Final = PRICED_NAMES.union(PAYLOAD_NAMES, LABEL_COLUMNS)
PAYMENT_DATA_NAMES: Final = frozenset(("amount", "kind", "transaction", "note", "expires", "priority"))

NOTE_MAX: Final = 2000
TRANSACTION_TEXT_MAX: Final = 2000


class Limits(msgspec.Struct, frozen=True):
    """Bounds on what is accepted; each is a setting of the worker.

    Attributes:
        message_bytes_max: Size of one broker message.
        message_events_max: Events in one message.
        event_bytes_max: Size of one event.
        depth_max: Levels of arrays and objects in an event, the event itself being the first.
        units_max: Units in one event's ``quantities``.
        future_seconds_max: How far an event's time may lie ahead of our clock.
    """

    message_bytes_max: int = limits.MESSAGE_BYTES_MAX
    message_events_max: int = 100_000
    event_bytes_max: int = limits.EVENT_BYTES_MAX
    depth_max: int = 64
    units_max: int = limits.UNITS_MAX
    future_seconds_max: int = 300


class Decoded(msgspec.Struct):
    """What a message held. Every event in it is in exactly one of the lists, in the order of the message."""

    usages: list[Usage]
    payments: list[Payment]
    rejected: list[Rejected]


class EventRejectedError(Exception):
    """An event cannot be booked; ``reason`` is the code, ``detail`` a sentence for the person who corrects it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
