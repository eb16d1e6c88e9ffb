"""Claiming the idempotency keys of a batch: what is new, what is a duplicate, what is a conflict.

Two forms with one result. The sure one inserts around what is there already. The hopeful one copies all keys at once,
which costs PostgreSQL less than half, and fails as a whole where a single key was used before; so it is only tried
while batches come clean, see `Hope`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from psycopg import Connection

from taximeter_db import rows
from taximeter_db.events import Rejected, Usage
from taximeter_db.ledger_common import conflict
from taximeter_db.sql import statement

_CLAIM_KEYS = statement("claim_keys")
_COPY_KEYS = statement("copy_keys")
_READ_KEYS = statement("read_keys")
_HOPEFUL_EVENTS_MIN: Final = 50
"""Below this a COPY's extra round trip costs more than it saves."""
_CLEAN_MIN: Final = 2
_CLEAN_MAX: Final = 256
_LOT_MIN: Final = 200
"""So many workspaces must be unseen before it pays to leave them unasked for."""
_LOTS_MIN: Final = 2
_LOTS_MAX: Final = 64


class Hope:
    """Whether the next batch is likely to hold new events alone. One for a worker; its threads may share it.

    A failed hope costs a second transaction, so each makes the next one wait for twice as many clean batches.
    """

    def __init__(self) -> None:
        self.workspaces: set[str] = set()
        """Some that are known to exist, so that nobody need make sure of it."""
        self._clean = 0
        self._wanted = _CLEAN_MIN
        self._lots = 0
        self._lots_wanted = _LOTS_MIN

    def __bool__(self) -> bool:
        return self._clean >= self._wanted

    def fulfilled(self) -> None:
        """A batch was booked that held no duplicate and no conflict."""
        self._clean += 1
        if self._clean > 2 * self._wanted:
            self._wanted = max(_CLEAN_MIN, self._wanted // 2)
            self._clean = self._wanted

    def disappointed(self, *, failed: bool) -> None:
        """A batch held one; with ``failed``, it was booked hopefully and had to be rolled back."""
        self._clean = 0
        if failed:
            self._wanted = min(2 * self._wanted, _CLEAN_MAX)

    def expects(self, unseen: int) -> bool:
        """Whether so many workspaces, unseen here, are likely to exist all: a worker that has just started meets old ones."""
        return unseen >= _LOT_MIN and self._lots >= self._lots_wanted

    def asked(self, unseen: int, *, made: int) -> None:
        """It was made sure of `unseen` workspaces, and `made` of them had not existed."""
        if made:
            self._lots = 0
        elif unseen >= _LOT_MIN:
            self._lots += 1

    def missed(self, workspace_ids: Iterable[str]) -> None:
        """These were taken to exist and do not: a transaction was rolled back."""
        self.workspaces.difference_update(workspace_ids)
        self._lots = 0
        self._lots_wanted = min(2 * self._lots_wanted, _LOTS_MAX)


class Claimed:
    """A batch sorted out."""

    def __init__(self) -> None:
        self.new: list[Usage] = []
        self.conflicts: list[Rejected] = []
        self.duplicates: dict[str, int] = {}
        """How many of each workspace."""
        self.hopeful = False
        """Whether it was claimed in the form that fails as a whole."""

    def repeated(self, usage: Usage, booked: bytes) -> None:
        """Note an event whose key was used before: the same content is a duplicate, other content a conflict."""
        workspace_id = usage.workspace_id
        if booked == usage.fingerprint:
            self.duplicates[workspace_id] = self.duplicates.get(workspace_id, 0) + 1
        else:
            self.conflicts.append(conflict("usage", workspace_id, usage.event_id, booked, usage.fingerprint, usage.raw))


def claim(conn: Connection[Any], usages: Sequence[Usage], hope: Hope | None) -> Claimed:
    """Claim the batch's keys and tell new usages from duplicates and conflicts.

    Raises:
        psycopg.errors.UniqueViolation: It was tried hopefully and in vain; the transaction is lost.
    """
    batch = Claimed()
    if not usages:
        return batch
    names = {name: name.encode() for name in {usage.workspace_id for usage in usages}}
    # Key and workspace as one string of bytes: sorts like the two columns, since workspace ids are ASCII.
    keys = [usage.key + names[usage.workspace_id] for usage in usages]
    first = dict(zip(keys, usages, strict=True))
    again: list[tuple[bytes, Usage]] = []
    if len(first) < len(keys):
        first = {}
        for key, usage in zip(keys, usages, strict=True):
            if first.setdefault(key, usage) is not usage:
                again.append((key, usage))
    ordered = sorted(first)
    if hope and len(ordered) >= _HOPEFUL_EVENTS_MIN:
        batch.hopeful = True
        _copy(conn, [first[key] for key in ordered], names)
        batch.new = list(first.values())
        booked: dict[bytes, bytes] = {}
    else:
        booked = _insert(conn, batch, first, ordered, names)
    for key, usage in again:
        # What is booked decides, and not what came first in this batch: that may itself be the conflict, where messages
        # were delivered again in another order.
        batch.repeated(usage, booked.get(key) or first[key].fingerprint)
    return batch


def _copy(conn: Connection[Any], usages: list[Usage], names: dict[str, bytes]) -> None:
    starts = {name: rows.prefixed(packed) + rows.UUID_LENGTH for name, packed in names.items()}
    data = [rows.COPY_HEADER]
    head = rows.KEY_HEAD
    for usage in usages:
        data += (head, usage.key, starts[usage.workspace_id], usage.fingerprint)
    data.append(rows.COPY_TRAILER)
    with conn.cursor().copy(_COPY_KEYS) as copy:
        copy.write(b"".join(data))


def _insert(
    conn: Connection[Any], batch: Claimed, first: dict[bytes, Usage], ordered: list[bytes], names: dict[str, bytes]
) -> dict[bytes, bytes]:
    """Claim what is new; returns the fingerprints of the keys that were used before this batch."""
    elements = {name: rows.prefixed(packed) for name, packed in names.items()}
    given = [first[key] for key in ordered]
    count, claimed_keys, claimed_workspaces = conn.execute(
        _CLAIM_KEYS,
        {
            "event_keys": rows.UuidArray([usage.key for usage in given]),
            "workspace_ids": rows.TextArray([elements[usage.workspace_id] for usage in given]),
            "fingerprints": rows.UuidArray([usage.fingerprint for usage in given]),
            "count": len(given),
        },
        prepare=True,
    ).fetchone()  # type: ignore[misc]  # an aggregate always returns a row
    if count == len(given):
        batch.new = list(first.values())
        return {}
    claimed = (
        {key.bytes + names[name] for key, name in zip(claimed_keys, claimed_workspaces, strict=True)}
        if count
        else set()
    )
    booked: dict[bytes, bytes] = {}
    old = [first[key] for key in ordered if key not in claimed]
    for event_key, workspace_id, fingerprint in conn.execute(
        _READ_KEYS,
        {
            "event_keys": rows.UuidArray([usage.key for usage in old]),
            "workspace_ids": rows.TextArray([elements[usage.workspace_id] for usage in old]),
        },
        prepare=True,
    ):
        key = event_key.bytes + names[workspace_id]
        booked[key] = fingerprint.bytes
        batch.repeated(first[key], fingerprint.bytes)
    batch.new = [usage for key, usage in first.items() if key in claimed]
    return booked
