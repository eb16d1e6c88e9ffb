"""What booking usages and booking payments share."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from psycopg import Connection

from taximeter_db import rows
from taximeter_db.events import Outcome, Rejected, WorkspaceState
from taximeter_db.money import from_numeric_text
from taximeter_db.sql import statement

_PARK = statement("park")


class MissingWorkspacesError(Exception):
    """A batch names workspaces that do not exist yet; its transaction was rolled back."""

    def __init__(self, workspace_ids: Iterable[str]) -> None:
        self.workspace_ids = list(workspace_ids)
        super().__init__(f"{len(self.workspace_ids)} workspaces do not exist")


class StaleKeysError(Exception):
    """Payloads are not encrypted with the present data keys of these workspaces; the transaction was rolled back."""

    def __init__(self, workspace_ids: Iterable[str]) -> None:
        self.workspace_ids = sorted(workspace_ids)
        super().__init__(f"{len(self.workspace_ids)} workspaces have other data keys now")


def state_from_row(row: Sequence[Any]) -> WorkspaceState:
    """A row of debit_workspaces, credit_workspaces, read_states or all_states.sql as a state."""
    workspace_id, balance, limits, usage_count, payment_count, version, epoch, updated_at = row
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
    )


# Most workspaces of a batch have the same limits, and the same time.
@functools.lru_cache(maxsize=4096)
def _limits(text: str) -> tuple[int, int]:
    minimum, low = text.split(" ")
    return from_numeric_text(minimum), from_numeric_text(low)


_micros = functools.lru_cache(maxsize=64)(rows.micros)


def conflict(kind: str, workspace_id: str, event_id: str, booked: bytes, given: bytes, raw: bytes) -> Rejected:
    """An event whose id was used before, for the content with the fingerprint `booked`."""
    return Rejected(
        reason="id_conflict",
        detail=(
            f"The id was used before in workspace {workspace_id} for other content (fingerprint "
            f"{booked.hex()}, this one {given.hex()}). The first stays booked. If this is another {kind}, publish it under an id of its own."
        ),
        event=raw,
        content_type="application/cloudevents+json",
        workspace_id=workspace_id,
        event_id=event_id,
        kind=kind,
    )


def storable(text: str) -> str:
    """A sentence as PostgreSQL can hold it, without NUL and lone surrogates: a reason must never fail to be stored."""
    return text.replace("\x00", "\\0").encode("utf-8", "backslashreplace").decode()


def park(conn: Connection[Any], rejected: Sequence[Rejected], outcome: Outcome) -> None:
    """Put events into quarantine, in the current transaction if there is one."""
    if not rejected:
        return
    # Two tables of one batch can hold the same bytes; the statement must see each once.
    by_digest = {hashlib.blake2b(entry.event, digest_size=16).digest(): entry for entry in rejected}
    entries = sorted(by_digest.items())
    conn.execute(
        _PARK,
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
            "digests": [digest for digest, _ in entries],
        },
    )
    for entry in rejected:
        outcome.rejected[entry.reason] += 1
