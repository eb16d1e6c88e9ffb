"""What booking usages and booking payments share."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from psycopg import Connection

from taximeter_db.ledger import binary_rows
from taximeter_db.ledger.events import Outcome, Payment, Rejected, Usage, WorkspaceState
from taximeter_db.money import from_numeric_text
from taximeter_db.sql import statement

_INSERT_QUARANTINED = statement("insert_quarantined")
_DAY_MICROS: Final = 86_400 * 10**6


class MissingWorkspacesError(Exception):
    """A batch names workspaces that do not exist yet; its transaction was rolled back."""

    def __init__(self, workspace_ids: Iterable[str]) -> None:
        self.workspace_ids = list(workspace_ids)
        super().__init__(f"{len(self.workspace_ids)} workspaces do not exist")


class MissingPartitionError(Exception):
    """The log has no partition for one of the times of a batch; it was rolled back.

    ``moments`` are its times, one a day, in microseconds since the Unix epoch: no partition is shorter than a day.
    """

    def __init__(self, recorded_at: Iterable[int]) -> None:
        self.moments = sorted({moment // _DAY_MICROS: moment for moment in recorded_at}.values())
        super().__init__("the log has no partition for the time of a batch")


class UnreadableKeysError(Exception):
    """Keys exist, so that they could not be claimed, and yet cannot be read: without them events would vanish silently."""

    def __init__(self, count: int) -> None:
        super().__init__(f"{count} idempotency keys can be neither claimed nor read")


class StaleKeysError(Exception):
    """Payloads are not encrypted with the present data keys of these workspaces; the transaction was rolled back."""

    def __init__(self, workspace_ids: Iterable[str]) -> None:
        self.workspace_ids = sorted(workspace_ids)
        super().__init__(f"{len(self.workspace_ids)} workspaces have other data keys now")


def state_from_row(row: Sequence[Any]) -> WorkspaceState:
    """A row of debit_workspaces, credit_workspaces, read_states or all_states.sql as a state; the latter two end in `budgets`."""
    workspace_id, balance, limits, usage_count, payment_count, version, epoch, updated_at, *budgets = row
    minimum, low = _limits(limits)
    return WorkspaceState(
        workspace_id,
        from_numeric_text(balance),
        minimum,
        low,
        usage_count,
        payment_count,
        version,
        epoch,
        _micros(updated_at),
        budgets[0] if budgets else None,
    )


# Most workspaces of a batch have the same limits, and the same time.
@functools.lru_cache(maxsize=4096)
def _limits(text: str) -> tuple[int, int]:
    minimum, low = text.split(" ")
    return from_numeric_text(minimum), from_numeric_text(low)


_micros = functools.lru_cache(maxsize=64)(binary_rows.micros)


def conflict(event: Usage | Payment, booked: bytes) -> Rejected:
    """Reject an event whose id was used before, for the content with the fingerprint `booked`."""
    kind = "usage" if isinstance(event, Usage) else "payment"
    return Rejected.of(
        event,
        "id_conflict",
        f"The id was used before in workspace {event.workspace_id} for other content (fingerprint {booked.hex()}, this one "
        f"{event.fingerprint.hex()}). The first stays booked. If this is another {kind}, publish it under an id of its own.",
    )


def storable(text: str) -> str:
    """A sentence as PostgreSQL can hold it, without NUL and lone surrogates: a reason must never fail to be stored."""
    return text.replace("\x00", "\\0").encode("utf-8", "backslashreplace").decode()


def _digest(entry: Rejected) -> bytes:
    """What tells an entry from others: its bytes and, where they hold no event's id, what came with them."""
    named = entry.event_id is not None and entry.event_id.encode() in entry.event
    if named or entry.properties is None:
        return hashlib.blake2b(entry.event, digest_size=16).digest()
    key = hashlib.blake2b(entry.properties.encode(), digest_size=32).digest()
    return hashlib.blake2b(entry.event, digest_size=16, key=key).digest()


def insert_quarantined(conn: Connection[Any], rejected: Sequence[Rejected], outcome: Outcome) -> None:
    """Put events into quarantine, in the current transaction if there is one."""
    if not rejected:
        return
    # Two tables of one batch can hold the same bytes; the statement must see each once.
    by_digest = {_digest(entry): entry for entry in rejected}
    entries = by_digest.items()
    conn.execute(
        _INSERT_QUARANTINED,
        {
            "kinds": [entry.kind for _, entry in entries],
            "workspace_ids": [entry.workspace_id for _, entry in entries],
            "event_ids": [entry.event_id for _, entry in entries],
            "reasons": [entry.reason for _, entry in entries],
            "details": [storable(entry.detail) for _, entry in entries],
            "events": [entry.event for _, entry in entries],
            "content_types": [
                None if entry.content_type is None else storable(entry.content_type) for _, entry in entries
            ],
            "properties": [entry.properties for _, entry in entries],
            "price_queries": [
                None if entry.price_query is None else msgspec.json.encode(entry.price_query).decode()
                for _, entry in entries
            ],
            "digests": list(by_digest),
        },
    )
    for entry in rejected:
        outcome.rejected[entry.reason] += 1
