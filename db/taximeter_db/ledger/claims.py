"""Claiming the idempotency keys of a batch: what is new, what is a duplicate, what is a conflict.

Two forms with one result. The cautious one inserts around what is there already. The optimistic one copies all keys at
once, which costs PostgreSQL less than half, and fails as a whole where a single key was used before; so it is only tried
while batches come without duplicates, see `OptimisticClaims`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from psycopg import Connection

from taximeter_db.ledger import binary_rows
from taximeter_db.ledger.common import UnreadableKeysError, conflict
from taximeter_db.ledger.events import Rejected, Usage
from taximeter_db.sql import statement

_CLAIM_KEYS = statement("claim_keys")
_COPY_KEYS = statement("copy_keys")
_READ_KEYS = statement("read_keys")
_OPTIMISTIC_EVENTS_MIN: Final = 50
"""Below this a COPY's extra round trip costs more than it saves."""
_CLEAN_MIN: Final = 2
_CLEAN_MAX: Final = 256
_UNSEEN_MIN: Final = 200
"""From this many unseen workspaces on, assuming that they exist is cheaper than creating them in case they do not."""
_GROUPS_MIN: Final = 2
_GROUPS_MAX: Final = 64


class OptimisticClaims:
    """Remembers how clean the last batches were, and which workspaces exist. One for a worker; its threads share it.

    A failed optimistic claim costs a second transaction, so after each the next one waits for twice as many clean batches.
    """

    def __init__(self) -> None:
        self.known_workspaces: set[str] = set()
        """Some that exist, so that no statement need create them."""
        self._clean = 0
        self._clean_wanted = _CLEAN_MIN
        self._existing_groups = 0
        self._existing_groups_wanted = _GROUPS_MIN

    @property
    def expects_clean_batch(self) -> bool:
        """Whether the next batch is likely to hold new events alone."""
        return self._clean >= self._clean_wanted

    def record_clean_batch(self) -> None:
        """A batch was booked that held no duplicate and no conflict."""
        self._clean += 1
        if self._clean > 2 * self._clean_wanted:
            self._clean_wanted = max(_CLEAN_MIN, self._clean_wanted // 2)
            self._clean = self._clean_wanted

    def record_repeat(self, *, rolled_back: bool) -> None:
        """A batch held one; `rolled_back`: it was claimed optimistically and its transaction was lost."""
        self._clean = 0
        if rolled_back:
            self._clean_wanted = min(2 * self._clean_wanted, _CLEAN_MAX)

    def expects_existing(self, unseen: int) -> bool:
        """Whether that many workspaces, unseen here, all exist in likelihood: a worker that has just started meets old ones."""
        return unseen >= _UNSEEN_MIN and self._existing_groups >= self._existing_groups_wanted

    def record_creation(self, unseen: int, *, created: int) -> None:
        """Of `unseen` workspaces, `created` had not existed before."""
        if created:
            self._existing_groups = 0
        elif unseen >= _UNSEEN_MIN:
            self._existing_groups += 1

    def record_missing(self, workspace_ids: Iterable[str]) -> None:
        """These were expected to exist and do not: a transaction was rolled back."""
        self.known_workspaces.difference_update(workspace_ids)
        self._existing_groups = 0
        self._existing_groups_wanted = min(2 * self._existing_groups_wanted, _GROUPS_MAX)


class Claimed:
    """A batch sorted out."""

    def __init__(self) -> None:
        self.new: list[Usage] = []
        self.conflicts: list[Rejected] = []
        self.duplicates: dict[str, int] = {}
        """How many of each workspace."""

    def repeated(self, usage: Usage, booked: bytes) -> None:
        """Note an event whose key was used before: the same content is a duplicate, other content a conflict."""
        workspace_id = usage.workspace_id
        if booked == usage.fingerprint:
            self.duplicates[workspace_id] = self.duplicates.get(workspace_id, 0) + 1
        else:
            self.conflicts.append(conflict(usage, booked))


def claim(conn: Connection[Any], usages: Sequence[Usage], claims: OptimisticClaims | None) -> Claimed:
    """Claim the batch's keys and tell new usages from duplicates and conflicts.

    Raises:
        psycopg.errors.UniqueViolation: An optimistic claim met a key that was used before; the transaction is lost.
        UnreadableKeysError: Keys that could not be claimed could not be read either; the transaction must be rolled back.
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
    if claims is not None and claims.expects_clean_batch and len(ordered) >= _OPTIMISTIC_EVENTS_MIN:
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
    starts = {name: binary_rows.prefixed(packed) + binary_rows.UUID_LENGTH for name, packed in names.items()}
    data = [binary_rows.COPY_HEADER]
    head = binary_rows.KEY_HEAD
    for usage in usages:
        data += (head, usage.key, starts[usage.workspace_id], usage.fingerprint)
    data.append(binary_rows.COPY_TRAILER)
    with conn.cursor().copy(_COPY_KEYS) as copy:
        copy.write(b"".join(data))


def _insert(
    conn: Connection[Any], batch: Claimed, first: dict[bytes, Usage], ordered: list[bytes], names: dict[str, bytes]
) -> dict[bytes, bytes]:
    """Claim what is new; returns the fingerprints of the keys that were used before this batch."""
    elements = {name: binary_rows.prefixed(packed) for name, packed in names.items()}
    given = [first[key] for key in ordered]
    count, claimed_keys, claimed_workspaces = conn.execute(
        _CLAIM_KEYS,
        {
            "event_keys": binary_rows.UuidArray([usage.key for usage in given]),
            "workspace_ids": binary_rows.TextArray([elements[usage.workspace_id] for usage in given]),
            "fingerprints": binary_rows.UuidArray([usage.fingerprint for usage in given]),
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
    for (workspace_id, event_key), fingerprint in read_fingerprints(conn, old).items():
        key = event_key + names[workspace_id]
        booked[key] = fingerprint
        batch.repeated(first[key], fingerprint)
    if len(booked) != len(old):
        raise UnreadableKeysError(len(old) - len(booked))
    batch.new = [usage for key, usage in first.items() if key in claimed]
    return booked


def read_fingerprints(conn: Connection[Any], usages: Sequence[Usage]) -> dict[tuple[str, bytes], bytes]:
    """The fingerprints of those usages' keys that were claimed before, by workspace and key."""
    rows = conn.execute(
        _READ_KEYS,
        {
            "event_keys": binary_rows.UuidArray([usage.key for usage in usages]),
            "workspace_ids": binary_rows.TextArray([binary_rows.text(usage.workspace_id) for usage in usages]),
        },
        prepare=True,
    )
    return {(workspace_id, key.bytes): fingerprint.bytes for key, workspace_id, fingerprint in rows}
