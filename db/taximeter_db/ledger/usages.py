"""Booking usages: one transaction for a batch.

Every step that takes locks takes them in sorted order (keys, then workspaces, then quarantine), so that two workers
with overlapping batches can wait for each other but never in a circle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import Connection, errors

from taximeter_db import flag_debts, status_changes
from taximeter_db.budgets import counting
from taximeter_db.ledger import binary_rows, columns, usage_rows
from taximeter_db.ledger.claims import Claimed, claim
from taximeter_db.ledger.common import (
    MissingPartitionError,
    MissingWorkspacesError,
    StaleKeysError,
    insert_quarantined,
    state_from_row,
)
from taximeter_db.ledger.context import BookingContext
from taximeter_db.ledger.events import Outcome, Rejected, Usage, WorkspaceState
from taximeter_db.notices import missing_prices
from taximeter_db.sql import statement

_DEBIT = statement("debit_workspaces")
_COPY_USAGES = statement("copy_usages").format(columns=columns.listed(tuple(columns.KINDS)))
_COPY_PAYLOADS = statement("copy_payloads")


def transact(
    conn: Connection[Any],
    context: BookingContext,
    outcome: Outcome,
    usages: Sequence[Usage],
    rejected: Sequence[Rejected],
) -> None:
    """Book usages and quarantine rejections in one transaction; `outcome` grows only once it has committed.

    Raises:
        StaleKeysError: Payloads are not encrypted, or not with the present keys; nothing was booked.
        MissingWorkspacesError: Some workspaces do not exist; nothing was booked.
        MissingPartitionError: The log has no partition for the time of the batch; nothing was booked.
        psycopg.errors.UniqueViolation: An optimistic claim met a key that was used before; nothing was booked.
    """
    if context.payload_crypto is not None:
        context.payload_crypto.encode(conn, usages)
    mine = Outcome()
    costs: dict[str, list[int]] = {}
    with conn.transaction():
        batch = claim(conn, usages, context.claims)
        if batch.new or batch.duplicates:
            costs = _costs(batch)
            # All that can be made before the balances are locked is made before.
            packed = usage_rows.pack(batch.new)
            states, links, keys, having_budgets = _debit(conn, batch, costs, packed.digests)
            if context.encrypts:
                _require_keys(batch, keys)
            if batch.new:
                try:
                    _append(conn, batch.new, packed, costs, states, links)
                except errors.CheckViolation as violation:
                    if violation.diag.constraint_name is not None:
                        raise
                    # "no partition of relation found for row": it has no name, unlike all constraints
                    raise MissingPartitionError(state.recorded_at for state in states.values()) from violation
                changes = status_changes.of_usages(batch.new, costs, states)
                status_changes.append(conn, changes)
                if having_budgets:
                    counting.count(conn, batch.new, states, having_budgets)
                mine.may_notify = bool(changes or having_budgets)
            mine.states = states
        insert_quarantined(conn, [*rejected, *batch.conflicts], mine)
        missing_prices.note(conn, rejected)
        if context.owe_flags and mine.states:
            flag_debts.note(conn, mine.states)
        context.before_commit()
    if context.claims is not None:
        if batch.duplicates or batch.conflicts:
            context.claims.record_repeat(rolled_back=False)
        else:
            context.claims.record_clean_batch()
    outcome.states.update(mine.states)
    outcome.may_notify |= mine.may_notify or any(entry.price_query is not None for entry in rejected)
    outcome.usages_booked += len(batch.new)
    outcome.usages_duplicate += sum(batch.duplicates.values())
    outcome.cost += sum(cost for cost, _ in costs.values())
    outcome.rejected.update(mine.rejected)
    outcome.refused.extend(batch.conflicts)
    for usage in usages:
        if usage.labels is not None and usage.labels.hold_id:
            outcome.holds.setdefault(usage.workspace_id, []).append(usage.labels.hold_id)


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
) -> tuple[dict[str, WorkspaceState], dict[str, bytes], dict[str, int], list[str]]:
    """Move the balances; returns each workspace's state, the new link of its chain, its present data key, and who has budgets."""
    names = sorted(costs)
    found = conn.execute(
        _DEBIT,
        {
            "workspace_ids": binary_rows.TextArray([binary_rows.text(name) for name in names]),
            "costs": binary_rows.NumericArray([costs[name][0] for name in names]),
            "usages": binary_rows.BigintArray([costs[name][1] for name in names]),
            "duplicates": binary_rows.BigintArray([batch.duplicates.get(name, 0) for name in names]),
            "digests": binary_rows.ByteaArray([digests.get(name, b"") for name in names]),
        },
        prepare=True,
        binary=True,
    ).fetchall()
    states: dict[str, WorkspaceState] = {}
    links: dict[str, bytes] = {}
    keys: dict[str, int] = {}
    having_budgets: list[str] = []
    for *state, link, key, has_budgets in found:
        name = state[0]
        states[name], links[name], keys[name] = state_from_row(state), link, key
        if has_budgets:
            having_budgets.append(name)
    if len(states) != len(names):
        raise MissingWorkspacesError(name for name in names if name not in states)
    return states, links, keys, having_budgets


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
        fixed[name] = (
            binary_rows.text(name),
            state.usage_count,
            state.payment_count,
            binary_rows.time(state.recorded_at),
        )
    log = [binary_rows.COPY_HEADER]
    payloads: list[bytes] = []
    numeric, head, head_linked = binary_rows.loose_numeric, usage_rows.head, usage_rows.head_linked
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
            stored = usage.payload if usage.stored is None else usage.stored
            payloads += (
                binary_rows.payload_head(seq, recorded_at, usage.codec),
                workspace,
                binary_rows.prefixed(stored),
            )
    log.append(binary_rows.COPY_TRAILER)
    with conn.cursor().copy(_COPY_USAGES) as copy:
        copy.write(b"".join(log))
    if payloads:
        with conn.cursor().copy(_COPY_PAYLOADS) as copy:
            copy.write(b"".join((binary_rows.COPY_HEADER, *payloads, binary_rows.COPY_TRAILER)))
