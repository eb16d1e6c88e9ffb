"""Booking usages: one transaction for a batch.

Every step that takes locks takes them in sorted order (keys, then workspaces, then quarantine), so that two workers
with overlapping batches can wait for each other but never in a circle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from psycopg import Connection

from taximeter_db import rows, status_changes, usage_rows
from taximeter_db.claims import Claimed, Hope, claim
from taximeter_db.events import Outcome, Rejected, Usage, WorkspaceState
from taximeter_db.ledger_common import MissingWorkspacesError, StaleKeysError, park, state_from_row
from taximeter_db.sql import statement

_DEBIT = statement("debit_workspaces")
_COPY_USAGES = statement("copy_usages")
_COPY_PAYLOADS = statement("copy_payloads")


def transact(
    conn: Connection[Any],
    usages: Sequence[Usage],
    rejected: Sequence[Rejected],
    outcome: Outcome,
    before_commit: Callable[[], None] | None,
    hope: Hope | None = None,
    *,
    encrypted: bool = False,
) -> None:
    """Book usages and park rejections in one transaction; `outcome` grows only once it has committed.

    Raises:
        StaleKeysError: With `encrypted`, payloads that are not, or not with the present keys; nothing was booked.
        MissingWorkspacesError: Some workspaces do not exist; nothing was booked.
        psycopg.errors.UniqueViolation: The hope that all were new was vain; nothing was booked.
    """
    mine = Outcome()
    costs: dict[str, list[int]] = {}
    with conn.transaction():
        batch = claim(conn, usages, hope)
        if batch.new or batch.duplicates:
            costs = _costs(batch)
            # All that can be made before the balances are locked is made before.
            packed = usage_rows.pack(batch.new)
            states, links, keys = _debit(conn, batch, costs, packed.digests)
            if encrypted:
                _require_keys(batch, keys)
            if batch.new:
                _append(conn, batch.new, packed, costs, states, links)
                status_changes.append(conn, status_changes.of_usages(batch.new, costs, states))
            mine.states = states
        park(conn, [*rejected, *batch.conflicts], mine)
        if before_commit is not None:
            before_commit()
    if hope is not None:
        if batch.duplicates or batch.conflicts:
            hope.disappointed(failed=False)
        else:
            hope.fulfilled()
    outcome.states.update(mine.states)
    outcome.usages_booked += len(batch.new)
    outcome.usages_duplicate += sum(batch.duplicates.values())
    outcome.cost += sum(cost for cost, _ in costs.values())
    outcome.rejected.update(mine.rejected)
    outcome.refused.extend(batch.conflicts)


def _costs(batch: Claimed) -> dict[str, list[int]]:
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


def _debit(
    conn: Connection[Any], batch: Claimed, costs: dict[str, list[int]], digests: dict[str, bytes]
) -> tuple[dict[str, WorkspaceState], dict[str, bytes], dict[str, int]]:
    """Move the balances; returns each workspace's state, the new link of its chain, and its present data key."""
    names = sorted(costs)
    found = conn.execute(
        _DEBIT,
        {
            "workspace_ids": rows.TextArray([rows.text(name) for name in names]),
            "costs": rows.NumericArray([costs[name][0] for name in names]),
            "usages": rows.BigintArray([costs[name][1] for name in names]),
            "duplicates": rows.BigintArray([batch.duplicates.get(name, 0) for name in names]),
            "digests": rows.ByteaArray([digests.get(name, b"") for name in names]),
        },
        prepare=True,
        binary=True,
    ).fetchall()
    states: dict[str, WorkspaceState] = {}
    links: dict[str, bytes] = {}
    keys: dict[str, int] = {}
    for *state, link, key in found:
        name = state[0]
        states[name], links[name], keys[name] = state_from_row(state), link, key
    if len(states) != len(names):
        raise MissingWorkspacesError(name for name in names if name not in states)
    return states, links, keys


def _require_keys(batch: Claimed, keys: dict[str, int]) -> None:
    """Under the balances' locks no key changes any more: what is encrypted otherwise now must be so again."""
    stale = {
        usage.workspace_id
        for usage in batch.new
        if usage.payload is not None and (not usage.key_number or usage.key_number != keys[usage.workspace_id])
    }
    if stale:
        raise StaleKeysError(stale)


def _append(
    conn: Connection[Any],
    usages: Sequence[Usage],
    packed: usage_rows.Packed,
    costs: dict[str, list[int]],
    states: dict[str, WorkspaceState],
    links: dict[str, bytes],
) -> None:
    """Append the rows of the log, each with its number and the balance after it, and their payloads."""
    # The update returned where each workspace ended; walking forward from where it began gives every row its balance.
    running: dict[str, list[int]] = {}
    fixed: dict[str, tuple[bytes, int, int, int]] = {}
    for name, (cost, count) in costs.items():
        state = states[name]
        running[name] = [state.balance + cost, state.usage_count - count]
        fixed[name] = (rows.text(name), state.usage_count, state.payment_count, rows.time(state.recorded_at))
    log = [rows.COPY_HEADER]
    payloads: list[bytes] = []
    numeric, head, head_linked = rows.loose_numeric, usage_rows.head, usage_rows.head_linked
    for usage, tail in zip(usages, packed.tails, strict=True):
        current = running[usage.workspace_id]
        current[0] = balance = current[0] - usage.cost
        current[1] = seq = current[1] + 1
        workspace, last, payments, recorded_at = fixed[usage.workspace_id]
        if seq == last:
            begin = head_linked(seq, seq + payments, recorded_at, links[usage.workspace_id])
        else:
            begin = head(seq, seq + payments, recorded_at)
        log += (begin, numeric(balance), workspace, tail)
        if usage.payload is not None:
            stored = usage.payload if usage.sealed is None else usage.sealed
            payloads += (rows.payload_head(seq, recorded_at, usage.codec), workspace, rows.prefixed(stored))
    log.append(rows.COPY_TRAILER)
    with conn.cursor().copy(_COPY_USAGES) as copy:
        copy.write(b"".join(log))
    if payloads:
        with conn.cursor().copy(_COPY_PAYLOADS) as copy:
            copy.write(b"".join((rows.COPY_HEADER, *payloads, rows.COPY_TRAILER)))
