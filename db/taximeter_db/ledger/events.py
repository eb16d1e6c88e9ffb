"""What goes into the ledger and what comes out of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import msgspec

from taximeter_db.ledger.columns import Labels
from taximeter_db.money import LOW_BALANCE_DEFAULT, MINIMUM_BALANCE_DEFAULT, status_of

EVENT_CONTENT_TYPE: Final = "application/cloudevents+json"
"""What the bytes of a single event are. The SDK's `taximeter.names` has the same; a test compares them."""
_HASHED_VERSION: Final = "8"
"""UUID version of keys made by hashing; an id that is a canonical UUID of this very version is hashed like any other."""


def event_key(event_id: str) -> bytes:
    """The 16 bytes under which an event id is remembered.

    A canonical (lower-case, hyphenated) UUID stands for itself, so that time-ordered ids land on one edge of the
    index. Anything else is hashed (BLAKE2b) into UUID version 8, which no id of the first kind can have. Should two
    ids ever meet in one key, their fingerprints differ, since those cover the id: a conflict, never a lost event.
    """
    if len(event_id) == 36 and event_id[8:24:5] == "----" and event_id[14] != _HASHED_VERSION:
        digits = event_id.replace("-", "")
        try:
            key = bytes.fromhex(digits)
        except ValueError:
            key = b""
        # fromhex also takes capitals and blanks; only the canonical spelling comes out as it went in
        if key.hex() == digits:
            return key
    digest = bytearray(hashlib.blake2b(event_id.encode(), digest_size=16, person=b"taximeter key").digest())
    digest[6] = 0x80 | (digest[6] & 0x0F)
    digest[8] = 0x80 | (digest[8] & 0x3F)
    return bytes(digest)


def uuid_keys(event_ids: Sequence[str]) -> list[bytes] | None:
    """`event_key` of many ids at once, where all are UUIDs that stand for themselves; else None."""
    count = len(event_ids)
    text = "".join(event_ids)
    if set(map(len, event_ids)) != {36} or any(text[at::36] != "-" * count for at in (8, 13, 18, 23)):
        return None
    digits = text.replace("-", "")
    if _HASHED_VERSION in text[14::36] or len(digits) != 32 * count:
        return None
    try:
        keys = bytes.fromhex(digits)
    except ValueError:
        return None
    if keys.hex() != digits:
        return None
    return [keys[at : at + 16] for at in range(0, 16 * count, 16)]


class Usage(msgspec.Struct, gc=False):
    """A usage event, decoded and priced: ready to book.

    `cost` is in picodollars, `occurred_at` in microseconds since the Unix epoch, `key` from `event_key`,
    `fingerprint` 16 bytes over id, type and data. `payload` is the JSON object of input, output and metadata as
    given; `raw` the event as received, kept in case it must be quarantined. `stored` is the payload as it is to be
    stored, if other than as given: see `taximeter_db.crypto.payload_crypto`. `labels`: None where it has none.
    """

    workspace_id: str
    event_id: str
    key: bytes
    fingerprint: bytes
    tool: str
    provider: str | None
    model: str | None
    quantities: dict[str, int | Decimal]
    occurred_at: int
    payload: bytes | None
    raw: bytes
    cost: int = 0
    price_version: int = 0
    stored: bytes | None = None
    codec: int = 0
    key_number: int = 0
    labels: Labels | None = None


class Payment(msgspec.Struct, gc=False):
    """A payment event, decoded: ready to book. `amount` is in picodollars, negative for an adjustment alone."""

    workspace_id: str
    payment_id: str
    fingerprint: bytes
    kind: str
    amount: int
    transaction: dict[str, str] | None
    note: str | None
    occurred_at: int
    raw: bytes


class PriceQuery(msgspec.Struct, frozen=True, gc=False):
    """What the price book is asked for an event: enough to know, without the event, whether it has a price now.

    `units` are those with a quantity other than 0, `at` is the event's time in microseconds.
    """

    tool: str
    provider: str | None
    model: str | None
    units: tuple[str, ...]
    at: int

    @classmethod
    def of(cls, usage: Usage) -> PriceQuery:
        """What is asked for this usage."""
        units = tuple(unit for unit, quantity in usage.quantities.items() if quantity)
        return cls(usage.tool, usage.provider, usage.model, units, usage.occurred_at)


class Rejected(msgspec.Struct, gc=False):
    """What cannot be booked, kept whole: a reason code, a sentence for a person, and the bytes as received.

    `kind` is ``usage``, ``payment`` (a whole message, too, that came by the way of payments) or ``message`` (when it is not even
    known to be an event). `properties` is JSON: what the sender gave with the message beside the bytes and their type. `price_query`: of a
    usage without a price.
    """

    reason: str
    detail: str
    event: bytes
    content_type: str | None = None
    workspace_id: str | None = None
    event_id: str | None = None
    kind: str = "message"
    properties: str | None = None
    price_query: PriceQuery | None = None

    @classmethod
    def of(cls, event: Usage | Payment, reason: str, detail: str) -> Rejected:
        """Reject an event that could be decoded."""
        if isinstance(event, Usage):
            kind, event_id = "usage", event.event_id
        else:
            kind, event_id = "payment", event.payment_id
        return cls(reason, detail, event.raw, EVENT_CONTENT_TYPE, event.workspace_id, event_id, kind)


class WorkspaceState(msgspec.Struct, gc=False):
    """A workspace after a commit: what its flag must say. Amounts in picodollars, `recorded_at` in microseconds."""

    workspace_id: str
    balance: int
    minimum: int
    low: int
    usage_count: int
    payment_count: int
    version: int
    epoch: int
    recorded_at: int
    budgets: str | None = None
    """The flag's list of hard budgets that are used up, see `taximeter_db.budgets.standing`; empty: it never had one; None: what
    the flag says stays."""

    @property
    def status(self) -> str:
        """``sufficient``, ``low`` or ``insufficient``."""
        return status_of(self.balance, self.minimum, self.low)

    @property
    def enabled(self) -> bool:
        """Whether AI is enabled: the balance has not fallen below the minimum."""
        return self.balance >= self.minimum


class Policy(msgspec.Struct, frozen=True):
    """What happens to a workspace that was never seen, and the limits (picodollars) that a new one gets."""

    quarantine_unknown: bool = False
    minimum: int = MINIMUM_BALANCE_DEFAULT
    low: int = LOW_BALANCE_DEFAULT


class Outcome(msgspec.Struct):
    """What became of a batch.

    `states` holds every workspace that it touched, those with duplicates alone included, each in its newest state.
    `rejected` counts all that went to quarantine by reason; `refused` are those that the ledger itself turned down. `holds` has,
    by workspace, those that the usages named, duplicates included: a batch that comes again settles them once more.
    `may_notify` says whether notices may have been written, if anybody wants them.
    """

    states: dict[str, WorkspaceState] = msgspec.field(default_factory=dict)
    usages_booked: int = 0
    usages_duplicate: int = 0
    payments_booked: int = 0
    payments_duplicate: int = 0
    cost: int = 0
    amount: int = 0
    rejected: Counter[str] = msgspec.field(default_factory=Counter)
    refused: list[Rejected] = msgspec.field(default_factory=list)
    holds: dict[str, list[str]] = msgspec.field(default_factory=dict)
    may_notify: bool = False
