"""Booking usages: one transaction for a batch.

Every step that takes locks takes them in sorted order (keys, then workspaces, then quarantine), so that two workers
with overlapping batches can wait for each other but never in a circle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from psycopg import Connection

from taximeter_db import rows, status_changes
from taximeter_db.events import Outcome, Rejected, Usage, WorkspaceState
from taximeter_db.ledger_common import MissingWorkspacesError, conflict, park, state_from_row
from taximeter_db.sql import statement

_CLAIM_KEYS = statement("claim_keys")
_READ_KEYS = statement("read_keys")
_DEBIT = statement("debit_workspaces")
_COPY_USAGES = statement("copy_usages")
_COPY_PAYLOADS = statement("copy_payloads")
_CODEC_PLAIN: Final = 0
_quantities_json = msgspec.json.Encoder(decimal_format="number").encode
# jsonb's binary format is a version number, 1, and the JSON text
_JSONB_VERSION: Final = b"\x01"
_NAMES_CACHED_MAX: Final = 10_000
_names: dict[tuple[str, str | None, str | None], bytes] = {}

Key = tuple[bytes, str]


class _Batch:
    """A batch sorted out: which usages are new, and what each workspace is charged for."""

    def __init__(self) -> None:
        self.new: list[Usage] = []
        self.conflicts: list[Rejected] = []
        self.duplicates: dict[str, int] = {}

    def repeated(self, usage: Usage, booked: bytes, *, in_batch: bool) -> None:
        """Note an event whose key was used before: the same content is a duplicate, other content a conflict."""
        workspace_id = usage.workspace_id
        if booked == usage.fingerprint:
            self.duplicates[workspace_id] = self.duplicates.get(workspace_id, 0) + 1
        else:
            first = None if in_batch else booked
            self.conflicts.append(conflict("usage", workspace_id, usage.event_id, first, usage.fingerprint, usage.raw))


def transact(
    conn: Connection[Any],
    usages: Sequence[Usage],
    rejected: Sequence[Rejected],
    outcome: Outcome,
    before_commit: Callable[[], None] | None,
) -> None:
    """Book usages and park rejections in one transaction; `outcome` grows only once it has committed.

    Raises:
        MissingWorkspacesError: Some workspaces do not exist; nothing was booked.
    """
    mine = Outcome()
    with conn.transaction():
        batch = _claim(conn, usages)
        if batch.new or batch.duplicates:
            costs = _costs(batch)
            states = _debit(conn, batch, costs)
            if batch.new:
                recorded_at = max(state.recorded_at for state in states.values())
                _append(conn, batch.new, costs, states, recorded_at)
                status_changes.append(conn, status_changes.of_usages(batch.new, costs, states, recorded_at))
            mine.states = states
        park(conn, [*rejected, *batch.conflicts], mine)
        if before_commit is not None:
            before_commit()
    outcome.states.update(mine.states)
    outcome.usages_booked += len(batch.new)
    outcome.usages_duplicate += sum(batch.duplicates.values())
    outcome.cost += sum(usage.cost for usage in batch.new)
    outcome.rejected.update(mine.rejected)
    outcome.refused.extend(batch.conflicts)


def _claim(conn: Connection[Any], usages: Sequence[Usage]) -> _Batch:
    """Claim the batch's keys and tell new usages from duplicates and conflicts."""
    batch = _Batch()
    first: dict[Key, Usage] = {}
    for usage in usages:
        given = first.setdefault((usage.key, usage.workspace_id), usage)
        if given is not usage:
            batch.repeated(usage, given.fingerprint, in_batch=True)
    if not first:
        return batch
    keys = sorted(first)
    pieces: dict[str, bytes] = {}
    workspace_elements = [pieces.get(name) or pieces.setdefault(name, rows.text(name)) for _, name in keys]
    count, claimed_keys, claimed_workspaces = conn.execute(
        _CLAIM_KEYS,
        {
            "event_keys": rows.UuidArray([key for key, _ in keys]),
            "workspace_ids": rows.TextArray(workspace_elements),
            "fingerprints": rows.UuidArray([first[key].fingerprint for key in keys]),
            "count": len(keys),
        },
        prepare=True,
    ).fetchone()  # type: ignore[misc]  # an aggregate always returns a row
    if count == len(keys):
        batch.new = list(first.values())
        return batch
    claimed = (
        {(key.bytes, name) for key, name in zip(claimed_keys, claimed_workspaces, strict=True)} if count else set()
    )
    old = [key for key in keys if key not in claimed]
    for event_key, workspace_id, fingerprint in conn.execute(
        _READ_KEYS,
        {
            "event_keys": rows.UuidArray([key for key, _ in old]),
            "workspace_ids": rows.TextArray([pieces[name] for _, name in old]),
        },
        prepare=True,
    ):
        batch.repeated(first[event_key.bytes, workspace_id], fingerprint.bytes, in_batch=False)
    batch.new = [usage for key, usage in first.items() if key in claimed]
    return batch


def _costs(batch: _Batch) -> dict[str, list[int]]:
    """Cost and number of new usages by workspace."""
    costs: dict[str, list[int]] = {name: [0, 0] for name in batch.duplicates}
    for usage in batch.new:
        sums = costs.get(usage.workspace_id)
        if sums is None:
            costs[usage.workspace_id] = [usage.cost, 1]
        else:
            sums[0] += usage.cost
            sums[1] += 1
    return costs


def _debit(conn: Connection[Any], batch: _Batch, costs: dict[str, list[int]]) -> dict[str, WorkspaceState]:
    names = sorted(costs)
    found = conn.execute(
        _DEBIT,
        {
            "workspace_ids": rows.TextArray([rows.text(name) for name in names]),
            "costs": rows.NumericArray([costs[name][0] for name in names]),
            "usages": rows.BigintArray([costs[name][1] for name in names]),
            "duplicates": rows.BigintArray([batch.duplicates.get(name, 0) for name in names]),
        },
        prepare=True,
    ).fetchall()
    states = {row[0]: state_from_row(row) for row in found}
    if len(states) != len(names):
        raise MissingWorkspacesError(name for name in names if name not in states)
    return states


def _append(
    conn: Connection[Any],
    usages: Sequence[Usage],
    costs: dict[str, list[int]],
    states: dict[str, WorkspaceState],
    recorded_at: int,
) -> None:
    """Append the rows of the log, each with its number and the balance after it, and their payloads."""
    # The update returned where each workspace ended; walking forward from where it began gives every row its balance.
    running: dict[str, list[int]] = {}
    packed_names: dict[str, bytes] = {}
    for name, (cost, count) in costs.items():
        state = states[name]
        running[name] = [state.balance + cost, state.usage_count - count, state.payment_count]
        packed_names[name] = rows.text(name)
    log = [rows.COPY_HEADER]
    payloads: list[bytes] = []
    numeric, text, usage_head, names = rows.numeric, rows.text, rows.usage_head, _names
    for usage in usages:
        current = running[usage.workspace_id]
        current[0] = balance = current[0] - usage.cost
        current[1] = seq = current[1] + 1
        what = (usage.tool, usage.provider, usage.model)
        workspace = packed_names[usage.workspace_id]
        quantities = _quantities_json(usage.quantities)
        log += (
            usage_head(seq, seq + current[2], usage.price_version, usage.occurred_at, recorded_at),
            numeric(usage.cost),
            numeric(balance),
            workspace,
            text(usage.event_id),
            names.get(what) or _remember(what),
            rows.prefixed(_JSONB_VERSION + quantities),
        )
        if usage.payload is not None:
            head = rows.payload_head(seq, recorded_at, _CODEC_PLAIN)
            payloads += (head, workspace, rows.prefixed(usage.payload))
    log.append(rows.COPY_TRAILER)
    with conn.cursor().copy(_COPY_USAGES) as copy:
        copy.write(b"".join(log))
    if payloads:
        with conn.cursor().copy(_COPY_PAYLOADS) as copy:
            copy.write(b"".join((rows.COPY_HEADER, *payloads, rows.COPY_TRAILER)))


def _remember(what: tuple[str, str | None, str | None]) -> bytes:
    """Packed tool, provider and model; few combinations make up nearly all of the traffic."""
    if len(_names) >= _NAMES_CACHED_MAX:
        _names.clear()
    packed = _names[what] = b"".join(map(rows.text_or_null, what))
    return packed
